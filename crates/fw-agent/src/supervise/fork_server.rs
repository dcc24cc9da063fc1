//! The fork server: a small process of which every supervisor is a copy.
//!
//! To execute this binary anew takes over a millisecond of processor, most of it for mapping and
//! relocating a large file; to fork a process that has done so takes a tenth of that. The agent
//! sends the directory of a task and the three streams of its supervisor through a socket; the
//! answer is the error of `fork(2)`, 0 for none.
//!
//! It knows no task and decides nothing. It has one thread, keeps no descriptor from one request
//! to the next, waits for no child, and ends when the agent does, which closes the socket. Whoever
//! kills it ends no command: a supervisor that it forked has all it needs, but for the spec, and
//! that the agent gives only after the answer (see `starter.rs`).

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use super::os::{self, Title};
use super::{SUBCOMMAND, note};

/// The hidden second argument that makes it a fork server.
pub(super) const OPTION: &str = "--fork-server";

/// The longest path that the system takes (`PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// Spec, control and log, which become a supervisor's standard streams.
const STREAMS: usize = 3;

/// What this process has become.
enum Role {
    /// A copy: the supervisor of the task with this directory.
    Supervisor(PathBuf),
    /// Still the fork server, which nobody needs any more.
    Over,
}

/// Serves the agent at the other end of standard input, or is one of the copies.
pub(super) fn main() -> ExitCode {
    // A copy gets out of the loop before it is anything, so that not even a panic brings it back.
    match serve() {
        Ok(Role::Supervisor(dir)) => super::main(&dir),
        Ok(Role::Over) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("{SUBCOMMAND} {OPTION} is started by the agent: {error}"));
            ExitCode::from(2)
        }
    }
}

fn serve() -> io::Result<Role> {
    os::ignore_signals();
    os::forget_children();
    os::close_descriptors();
    // Out of reach of the terminal that the agent may have been started from.
    let _ = rustix::process::setsid();
    name(c"fw-fork-server");
    let title = Title::find();
    while let Some(request) = receive()? {
        match request.and_then(|request| os::fork().map(|pid| (pid, request))) {
            Ok((0, request)) => return request.take_up(title).map(Role::Supervisor),
            Ok((_, request)) => {
                drop(request);
                answer(0);
            }
            Err(error) => answer(error.raw_os_error().unwrap_or(libc::EINVAL)),
        }
    }
    Ok(Role::Over)
}

/// The name that the system shows where it shows no arguments.
fn name(name: &std::ffi::CStr) {
    // Nothing depends on it.
    let _ = rustix::thread::set_name(name);
}

/// A supervisor that is asked for.
struct Request {
    dir: PathBuf,
    streams: [OwnedFd; STREAMS],
}

impl Request {
    /// Makes this process what an executed supervisor is at its beginning.
    fn take_up(self, title: Option<Title>) -> io::Result<PathBuf> {
        os::take_streams(self.streams)?;
        os::remember_children();
        name(c"fw-supervisor");
        if let Some(title) = title {
            title.set(&[b"fleetwright", SUBCOMMAND.as_bytes(), self.dir.as_os_str().as_bytes()]);
        }
        Ok(self.dir)
    }
}

/// Nothing is read from it but by system calls, so a copy finds an empty buffer.
fn socket() -> io::Stdin {
    io::stdin()
}

/// Waits for a request; `None` when the agent is gone, an error inside when it cannot be met.
fn receive() -> io::Result<Option<io::Result<Request>>> {
    let mut path = [0; LONGEST_PATH];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut path)];
        match recvmsg(socket(), &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut streams: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = message {
            streams.extend(sent);
        }
    }
    let Some(path) = path.get(..received.bytes).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Ok(Some(Err(Errno::NAMETOOLONG.into())));
    }
    // Fewer than were sent when there is no room for more descriptors.
    let Ok(streams) = <[OwnedFd; STREAMS]>::try_from(streams) else {
        return Ok(Some(Err(Errno::MFILE.into())));
    };
    Ok(Some(Ok(Request { dir: OsString::from_vec(path.to_vec()).into(), streams })))
}

/// An agent that is gone hears nothing, and is noticed at the next request.
fn answer(code: i32) {
    let _ = send(socket(), &code.to_ne_bytes(), SendFlags::NOSIGNAL);
}

/// The agent's side: asks for a supervisor. The answer is to be had from [`hear`].
pub(super) fn ask(
    server: &OwnedFd,
    dir: &Path,
    streams: [BorrowedFd<'_>; STREAMS],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&streams));
    let path = dir.as_os_str().as_bytes();
    sendmsg(server, &[IoSlice::new(path)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The agent's side: whether there is a supervisor. The outer error is that of a server which
/// does not answer, the inner one that of a server which could not fork.
pub(super) fn hear(server: &OwnedFd) -> io::Result<io::Result<()>> {
    let mut code = [0; size_of::<i32>()];
    let taken = loop {
        match recv(server, &mut code, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            other => break other?.0,
        }
    };
    if taken != code.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(match i32::from_ne_bytes(code) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    })
}
