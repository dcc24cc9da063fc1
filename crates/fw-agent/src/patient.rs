//! A wire that hands over the head of the upgrade's answer in one piece.
//!
//! The WebSocket library takes an answer that comes in many small pieces for an attack and gives up; behind a bad
//! line or a careful proxy it may well come byte by byte. How long it may take is the dialer's deadline to say.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest head that is waited for; the library has its own word on longer ones.
const LONGEST: usize = 16 * 1024;

/// Where a head ends (RFC 9112 §2.1).
const END: &[u8] = b"\r\n\r\n";

/// A wire whose first bytes are kept until the head is whole.
pub(crate) struct Patient<S> {
    inner: S,
    /// What was read and not handed over.
    head: Vec<u8>,
    whole: bool,
}

impl<S> Patient<S> {
    pub(crate) const fn new(inner: S) -> Self {
        Self { inner, head: Vec::new(), whole: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.whole {
            let mut bytes = [0; 1024];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.inner).poll_read(cx, &mut read))?;
            self.head.extend_from_slice(read.filled());
            self.whole = read.filled().is_empty()
                || self.head.len() > LONGEST
                || self.head.windows(END.len()).any(|end| end == END);
        }
        if self.head.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, into);
        }
        let taken = self.head.len().min(into.remaining());
        into.put_slice(self.head.get(..taken).unwrap_or_default());
        self.head.drain(..taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_head_in_pieces_comes_whole_and_the_rest_as_it_is() {
        let (mut server, client) = tokio::io::duplex(1);
        let sent: Vec<u8> = [&b"HTTP/1.1 101 Switching\r\nA: b\r\n\r\n"[..], &[7; 300]].concat();
        let (mut wire, mut first, mut rest) = (Patient::new(client), [0; 512], Vec::new());
        let say = async {
            server.write_all(&sent).await.unwrap();
            drop(server);
        };
        let hear = async {
            let read = wire.read(&mut first).await.unwrap();
            wire.read_to_end(&mut rest).await.unwrap();
            read
        };
        let ((), read) = tokio::join!(say, hear);
        assert!(first[..read].windows(4).any(|end| end == END), "{read}");
        assert_eq!([&first[..read], &rest].concat(), sent);
    }
}
