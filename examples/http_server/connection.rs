//! A connection: the requests that come in, and the answers to them. It knows no poller.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::{ops::ControlFlow, time::Instant};

use httparse::{EMPTY_HEADER, Error, Status};

/// The longest head of a request. A connection has that much memory for what it sends, and little
/// more for the answers.
const BUFFER_SIZE: usize = 8 * 1024;
/// How many times in a row a client may fill a buffer before the others have their turn.
const FAIR_SHARE: usize = 16;
const GREETING: &str = "Hello from pollio.\n";

pub(crate) struct Connection {
    stream: TcpStream,
    /// What was read, so far as it is filled, and not yet answered.
    input: Box<[u8; BUFFER_SIZE]>,
    filled: usize,
    /// Answers that were not yet written.
    output: Vec<u8>,
    /// Nothing is answered any more.
    is_closing: bool,
    last_active: Instant,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> Self {
        let (input, last_active) = (Box::new([0; BUFFER_SIZE]), Instant::now());
        Self { stream, input, filled: 0, output: Vec::new(), is_closing: false, last_active }
    }

    /// When the client last took a part of an answer; at first, when it came.
    pub(crate) fn last_active(&self) -> Instant {
        self.last_active
    }

    /// Answers what is there, and only then reads more. Breaks off at the end of what the client
    /// sends: to close earlier would be a reset, and could take the last answer away from it.
    pub(crate) fn serve(&mut self) -> io::Result<ControlFlow<()>> {
        for _ in 0..FAIR_SHARE {
            self.write()?;
            if self.is_closing {
                self.filled = 0;
            } else if self.answer() {
                continue;
            }
            let count = self.stream.read(&mut self.input[self.filled..])?;
            if count == 0 {
                return Ok(ControlFlow::Break(()));
            }
            self.filled += count;
        }
        Ok(ControlFlow::Continue(()))
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

    /// Answers the requests that are whole, a buffer full at most. Returns whether there were any.
    fn answer(&mut self) -> bool {
        let mut taken = 0;
        while !self.is_closing && self.output.len() < BUFFER_SIZE {
            match Request::parse(&self.input[taken..self.filled]) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    taken += request.length;
                    self.is_closing = request.is_last;
                    self.respond("200 OK", GREETING, request.is_head);
                }
                Err(refusal) => {
                    self.is_closing = true;
                    self.respond(refusal, "", false);
                }
            }
        }
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        !self.output.is_empty()
    }

    fn respond(&mut self, status: &str, body: &str, is_head: bool) {
        let (length, body) = (body.len(), if is_head { "" } else { body });
        let close = if self.is_closing { "Connection: close\r\n" } else { "" };
        let response =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{close}\r\n{body}");
        self.output.extend_from_slice(response.as_bytes());
    }
}

struct Request {
    length: usize,
    is_head: bool,
    is_last: bool,
}

impl Request {
    /// The request that `bytes` begin with, if it is whole; or the status that refuses it.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let mut headers = [EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if bytes.len() < BUFFER_SIZE => return Ok(None),
            Ok(Status::Partial) | Err(Error::TooManyHeaders) => {
                return Err("431 Request Header Fields Too Large");
            }
            Err(_) => return Err("400 Bad Request"),
        };
        let values = |name: &'static str| {
            let named = request.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            named
                .flat_map(|header| header.value.split(|byte| *byte == b','))
                .map(<[u8]>::trim_ascii)
        };
        let is_old = request.version == Some(0);
        if !is_old && values("host").count() != 1 {
            return Err("400 Bad Request");
        }
        let is_head = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err("501 Not Implemented"),
        };
        if values("transfer-encoding").count() > 0 || values("content-length").any(|n| n != b"0") {
            return Err("413 Content Too Large");
        }
        let is_last = is_old || values("connection").any(|v| v.eq_ignore_ascii_case(b"close"));
        Ok(Some(Self { length, is_head, is_last }))
    }
}
