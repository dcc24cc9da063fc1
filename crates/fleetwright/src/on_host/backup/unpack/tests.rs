//! Archives that lie.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use super::*;
use crate::on_host::state::{Entry, Mode};

/// What an archive is made of.
enum Item {
    File(&'static str, &'static str),
    Link(&'static str, &'static str),
    Symlink(&'static str, &'static str),
    Dir(&'static str),
}
use Item::{Dir, File as Plain, Link, Symlink};

/// An archive written by hand, with names that no honest program writes.
fn archive(dir: &Path, items: &[Item]) -> PathBuf {
    let path = dir.join("x.tar.zst");
    let mut tar = tar::Builder::new(zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap());
    for item in items {
        let (name, kind, target, text) = match item {
            Plain(name, text) => (name, tar::EntryType::Regular, "", *text),
            Link(name, to) => (name, tar::EntryType::Link, *to, ""),
            Symlink(name, to) => (name, tar::EntryType::Symlink, *to, ""),
            Dir(name) => (name, tar::EntryType::Directory, "", ""),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(text.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        (&mut gnu.name[..]).write_all(name.as_bytes()).unwrap();
        (&mut gnu.linkname[..]).write_all(target.as_bytes()).unwrap();
        header.set_cksum();
        tar.append(&header, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path
}

fn kept(kind: Kind) -> Kept {
    let uid = rustix::process::getuid().as_raw();
    let gid = rustix::process::getgid().as_raw();
    let entry = Entry { kind, mode: Mode(0o700), uid, gid };
    Kept { entry, modified: (1, 2), same_as: None }
}

fn file(text: &str) -> Kept {
    let (bytes, sha256) = sum(text.as_bytes()).unwrap();
    kept(Kind::File { bytes, sha256 })
}

fn symlink(target: &str) -> Kept {
    kept(Kind::Symlink { target: target.to_owned() })
}

fn link(first: &str, text: &str) -> Kept {
    Kept { same_as: Some(first.to_owned()), ..file(text) }
}

fn manifest<const N: usize>(entries: [(&str, Kept); N]) -> Files {
    let entries: BTreeMap<_, _> =
        entries.into_iter().map(|(path, kept)| (path.to_owned(), kept)).collect();
    Files { entries, left_out: Vec::new() }
}

/// What is said of an archive with this manifest.
fn refused(items: &[Item], files: &Files) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = archive(dir.path(), items);
    let checked = check(&path, files, &Progress::new());
    checked.map_or_else(|error| format!("{error:#}"), |()| "nothing".to_owned())
}

#[test]
fn an_archive_must_be_what_its_manifest_says() {
    let check = |items: &[Item], files: &Files, expected: &str| {
        let told = refused(items, files);
        assert!(told.contains(expected), "{expected:?}: {told}");
    };
    let good = || manifest([("/a", kept(Kind::Directory)), ("/a/b", file("x"))]);
    check(&[Dir("a"), Plain("a/b", "x")], &good(), "nothing");
    check(&[Dir("a")], &good(), "\"/a/b\" is missing");
    check(&[Dir("a"), Plain("a/b", "y")], &good(), "bytes are not those");
    check(&[Dir("a"), Plain("a/b", "longer")], &good(), "not what the manifest says");
    check(&[Dir("a"), Symlink("a/b", "/etc")], &good(), "not what the manifest says");
    check(&[Dir("a"), Plain("a/b", "x"), Plain("a/b", "x")], &good(), "is not in the manifest");
    check(&[Dir("a"), Plain("a/b", "x"), Plain("c", "x")], &good(), "is not in the manifest");
}

#[test]
fn nothing_leads_out() {
    let check = |items: &[Item], files: &Files, expected: &str| {
        let told = refused(items, files);
        assert!(told.contains(expected), "{expected:?}: {told}");
    };
    check(&[Plain("../a", "x")], &manifest([("/../a", file("x"))]), "no path of a backup");
    check(
        &[Plain("a/../../b", "x")],
        &manifest([("/a/../../b", file("x"))]),
        "no path of a backup",
    );
    check(&[Plain("a", "x")], &manifest([("a", file("x"))]), "no path of a backup");
    check(&[Plain("a", "x")], &manifest([("/", file("x"))]), "is not in the manifest");
    let through = manifest([("/a", symlink("/etc")), ("/a/b", file("x"))]);
    check(&[Symlink("a", "/etc"), Plain("a/b", "x")], &through, "which is no directory");
    let away = manifest([("/a", link("/etc/shadow", "x"))]);
    check(&[Link("a", "etc/shadow")], &away, "is missing");
    let other = manifest([("/a", link("/b", "x")), ("/b", symlink("/etc/shadow"))]);
    check(&[Symlink("b", "/etc/shadow"), Link("a", "b")], &other, "is another");
}

/// The host may have changed since: a symlink that is in the way now is not followed either.
#[test]
fn a_symlink_on_the_way_is_not_followed() {
    let (dir, root, outside) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = archive(dir.path(), &[Plain("a/b", "x")]);
    std::os::unix::fs::symlink(outside.path(), root.path().join("a")).unwrap();
    let files = manifest([("/a/b", file("x"))]);
    let progress = Progress::new();
    check(&path, &files, &progress).unwrap();
    let error = restore(&path, &files, root.path(), &progress).unwrap_err();
    assert!(format!("{error:#}").contains("symlinks are not followed"), "{error:#}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// Whatever is in the place of a thing now, it is replaced; twice, because an undo is repeated.
#[test]
fn what_is_in_the_way_is_replaced() {
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let items =
        [Dir("d"), Plain("d/a", "x"), Link("d/b", "d/a"), Symlink("l", "d"), Plain("f", "y")];
    let path = archive(dir.path(), &items);
    let files = manifest([
        ("/d", kept(Kind::Directory)),
        ("/d/a", file("x")),
        ("/d/b", link("/d/a", "x")),
        ("/l", symlink("d")),
        ("/f", file("y")),
    ]);
    let at = |name: &str| root.path().join(name);
    std::fs::write(at("d"), "a file in the place of a directory").unwrap();
    std::fs::write(at("l"), "a file in the place of a symlink").unwrap();
    std::os::unix::fs::symlink("/etc/hostname", at("f")).unwrap();
    for _ in 0..2 {
        restore(&path, &files, root.path(), &Progress::new()).unwrap();
        assert_eq!(std::fs::read_to_string(at("d/b")).unwrap(), "x");
        assert_eq!(std::fs::read_link(at("l")).unwrap(), PathBuf::from("d"));
        assert!(std::fs::symlink_metadata(at("f")).unwrap().is_file());
        let names: Vec<_> =
            std::fs::read_dir(at("d")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
    std::fs::remove_file(at("f")).unwrap();
    std::fs::create_dir(at("f")).unwrap();
    let error = restore(&path, &files, root.path(), &Progress::new()).unwrap_err();
    assert!(format!("{error:#}").contains("move that away"), "{error:#}");
}
