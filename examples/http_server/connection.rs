//! The state of a connection: requests that come in, and the answers to them. It knows no poller.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Error, Status};

/// The longest head of a request, and the most that is read before it is answered.
const INPUT_SIZE: usize = 8 * 1024;
/// The number of reads in a row from a client before the others have their turn.
const FAIR_SHARE: usize = 16;

pub(crate) struct Connection {
    /// Input that is not yet answered.
    input: Vec<u8>,
    /// Answers that are still to be written.
    output: Vec<u8>,
    /// No further request is answered.
    is_closing: bool,
    /// When the client last took a part of an answer. It starts at the client's arrival.
    last_active: Instant,
}

impl Connection {
    pub(crate) fn new() -> Self {
        let (input, output, last_active) = (Vec::new(), Vec::new(), Instant::now());
        Self { input, output, is_closing: false, last_active }
    }

    pub(crate) fn is_idle(&self, limit: Duration) -> bool {
        self.last_active.elapsed() >= limit
    }

    /// Writes the answers, and only then reads more, until that would block or the client had its share. The connection
    /// is over at the end of the client's stream: an earlier close would be a reset, which could take the last answer
    /// away from the client.
    pub(crate) fn serve(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        for _ in 0..FAIR_SHARE {
            self.write(stream)?;
            let mut bytes = [0; INPUT_SIZE];
            let room = &mut bytes[self.input.len()..];
            let count = stream.read(room)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.input.extend(&room[..count]);
            self.answer();
        }
        Ok(())
    }

    fn write(&mut self, mut stream: &TcpStream) -> io::Result<()> {
        while !self.output.is_empty() {
            let written = stream.write(&self.output)?;
            self.output.drain(..written);
            self.last_active = Instant::now();
            if self.is_closing && self.output.is_empty() {
                stream.shutdown(Shutdown::Write)?;
            }
        }
        Ok(())
    }

    /// Answers all complete requests. The rest of the input is shorter than it may be.
    fn answer(&mut self) {
        let mut rest = &self.input[..];
        while !self.is_closing {
            let (status, body, is_head) = match Request::parse(rest) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    rest = &rest[request.length..];
                    self.is_closing = request.is_last;
                    ("200 OK", format!("You asked for {}\n", request.target), request.is_head)
                }
                Err(refusal) => {
                    self.is_closing = true;
                    (refusal, String::new(), false)
                }
            };
            let (length, close) =
                (body.len(), if self.is_closing { "close" } else { "keep-alive" });
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: {close}");
            let body = if is_head { "" } else { &body };
            self.output.extend([&head, "\r\n\r\n", body].concat().bytes());
        }
        let taken = if self.is_closing { self.input.len() } else { self.input.len() - rest.len() };
        self.input.drain(..taken);
    }
}

struct Request<'a> {
    length: usize,
    target: Cow<'a, str>,
    /// Its answer has the same head as for GET, and no body.
    is_head: bool,
    is_last: bool,
}

impl<'a> Request<'a> {
    /// The request at the start of `bytes`, if it is complete; or the status that refuses it.
    ///
    /// No request may have a body. So two readers cannot differ on where one ends, and the bytes after a refusal are no
    /// request.
    fn parse(bytes: &'a [u8]) -> Result<Option<Self>, &'static str> {
        let mut headers = [EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(bytes) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) if bytes.len() < INPUT_SIZE => return Ok(None),
            Ok(Status::Partial) if !bytes.contains(&b'\n') => return Err("414 URI Too Long"),
            Ok(Status::Partial) | Err(Error::TooManyHeaders) => {
                return Err("431 Request Header Fields Too Large");
            }
            Err(_) => return Err("400 Bad Request"),
        };
        // The values of all headers of that name.
        let fields = |name: &'static str| {
            let named = request.headers.iter().filter(move |h| h.name.eq_ignore_ascii_case(name));
            named.map(|header| header.value.trim_ascii())
        };
        // Those that are lists are one list.
        let values = |name| {
            fields(name).flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii)
        };

        // RFC 9112, section 3.2: one `Host`, which only HTTP/1.0 may lack.
        let is_old = request.version == Some(0);
        let hosts = fields("host").count();
        let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%".contains(byte);
        if hosts > 1 || hosts == 0 && !is_old || !fields("host").all(|h| h.iter().all(is_host)) {
            return Err("400 Bad Request");
        }
        // Section 6.3: this may be an attempt to smuggle another request in.
        let mut lengths = values("content-length");
        let content = lengths.next();
        let is_number = |value: &[u8]| !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let is_coded = fields("transfer-encoding").count() > 0;
        if content.is_some_and(|content| !is_number(content))
            || lengths.any(|other| Some(other) != content)
            || is_coded && (content.is_some() || is_old)
        {
            return Err("400 Bad Request");
        }
        let is_head = match request.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err("501 Not Implemented"),
        };
        if is_coded || content.is_some_and(|content| content.iter().any(|digit| *digit != b'0')) {
            return Err("413 Content Too Large");
        }
        let target = origin_form(request.path.unwrap_or_default()).ok_or("400 Bad Request")?;
        let is_asked = |to: &[u8]| values("connection").any(|value| value.eq_ignore_ascii_case(to));
        let is_last = is_asked(b"close") || is_old && !is_asked(b"keep-alive");
        Ok(Some(Self { length, target, is_head, is_last }))
    }
}

/// Path and query of a target. A proxy is sent the whole of it: `http://here/path?query`.
fn origin_form(target: &str) -> Option<Cow<'_, str>> {
    if target.starts_with('/') {
        return Some(target.into());
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match path {
        _ if !is_http || host.is_empty() => None,
        path if path.starts_with('/') => Some(path.into()),
        query => Some(format!("/{query}").into()),
    }
}
