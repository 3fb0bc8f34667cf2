//! A connection: the requests that come in, and the answers to them. It knows no poller.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use httparse::{EMPTY_HEADER, Error, Status};

/// The longest head of a request, and all that is read before it is answered.
const INPUT_SIZE: usize = 8 * 1024;
/// How many times in a row a client may be read from before the others have their turn.
const FAIR_SHARE: usize = 16;

pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read and not yet answered.
    input: Vec<u8>,
    /// Answers that were not yet written.
    output: Vec<u8>,
    /// Nothing is answered any more.
    is_closing: bool,
    /// When the client last took a part of an answer; at first, when it came.
    pub(crate) last_active: Instant,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (input, output, last_active) = (Vec::new(), Vec::new(), Instant::now());
        Self { stream, input, output, is_closing: false, last_active }
    }

    /// Writes the answers, and only then reads more, until that would block or it had its share. It
    /// is over at the end of what the client sends: to close earlier would be a reset, and could
    /// take the last answer away from it.
    pub(crate) fn serve(&mut self) -> io::Result<()> {
        for _ in 0..FAIR_SHARE {
            self.write()?;
            let mut bytes = [0; INPUT_SIZE];
            let room = &mut bytes[self.input.len()..];
            let count = self.stream.read(room)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.input.extend(&room[..count]);
            self.answer();
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let written = self.stream.write(&self.output)?;
            self.output.drain(..written);
            self.last_active = Instant::now();
            if self.is_closing && self.output.is_empty() {
                self.stream.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// Answers all requests that are whole. What is left of the input is less than it may hold.
    fn answer(&mut self) {
        let mut rest = &self.input[..];
        while !self.is_closing {
            let (status, body) = match Request::parse(rest) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    rest = &rest[request.length..];
                    self.is_closing = request.is_last;
                    ("200 OK", format!("You asked for {}\n", request.path))
                }
                Err(refusal) => {
                    self.is_closing = true;
                    (refusal, String::new())
                }
            };
            let (length, close) =
                (body.len(), if self.is_closing { "close" } else { "keep-alive" });
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {close}");
            self.output.extend([&head, "\r\n\r\n", &body].concat().bytes());
        }
        let taken = if self.is_closing { self.input.len() } else { self.input.len() - rest.len() };
        self.input.drain(..taken);
    }
}

struct Request<'a> {
    length: usize,
    path: &'a str,
    is_last: bool,
}

impl<'a> Request<'a> {
    /// The request that `bytes` begin with, if it is whole; or the status that refuses it.
    fn parse(bytes: &'a [u8]) -> Result<Option<Self>, &'static str> {
        let mut headers = [EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if bytes.len() < INPUT_SIZE => return Ok(None),
            Ok(Status::Partial) | Err(Error::TooManyHeaders) => {
                return Err("431 Request Header Fields Too Large");
            }
            Err(_) => return Err("400 Bad Request"),
        };
        if request.method != Some("GET") {
            return Err("501 Not Implemented");
        }
        let values = |name: &'static str| {
            let named = request.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            named
                .flat_map(|header| header.value.split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
        };
        if values("transfer-encoding").count() > 0 || values("content-length").any(|n| n != b"0") {
            return Err("413 Content Too Large");
        }
        let is_old = request.version == Some(0);
        let is_last = is_old || values("connection").any(|v| v.eq_ignore_ascii_case(b"close"));
        Ok(Some(Self { length, path: request.path.unwrap_or("/"), is_last }))
    }
}
