//! One file, directory or other thing of a file system, as it is compared.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::on_host::{sum, text_of};

/// What is at a path. Symlinks are not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(flatten)]
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Of which kind it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Kind {
    File { bytes: u64, sha256: String },
    Directory,
    Symlink { target: String },
    Fifo,
    Socket,
    Device { number: u64 },
}

/// Permissions; written in octal, as people know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mode(pub(crate) u32);

impl Mode {
    /// Permissions alone, without the kind.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self(metadata.mode() & 0o7777)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: std::borrow::Cow<'de, str> = Deserialize::deserialize(deserializer)?;
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
        mode.map(Self).ok_or_else(|| serde::de::Error::custom("no mode such as 0644"))
    }
}

impl Kind {
    /// `a file`, for sentences.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::File { .. } => "a file",
            Self::Directory => "a directory",
            Self::Symlink { .. } => "a symlink",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::Device { .. } => "a device",
        }
    }
}

impl Entry {
    /// What is at a path of which this is known already; the bytes of files are read.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn read(path: &Path, metadata: &Metadata) -> io::Result<Self> {
        let kind = metadata.file_type();
        let kind = if kind.is_file() {
            let (bytes, sha256) = sum(open(path)?)?;
            Kind::File { bytes, sha256 }
        } else if kind.is_dir() {
            Kind::Directory
        } else if kind.is_symlink() {
            Kind::Symlink { target: text_of(&fs::read_link(path)?) }
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            Kind::Device { number: metadata.rdev() }
        };
        Ok(Self::with(kind, metadata))
    }

    /// Of this kind, with the owner and mode that it has.
    pub(crate) fn with(kind: Kind, metadata: &Metadata) -> Self {
        Self { kind, mode: Mode::of(metadata), uid: metadata.uid(), gid: metadata.gid() }
    }
}

/// Opens a regular file: what has become a symlink or a FIFO meanwhile neither leads away nor hangs.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}
