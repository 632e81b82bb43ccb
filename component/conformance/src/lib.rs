//! A small HTTP/1.1 client on a plain socket, so that a test decides about every byte that is sent. The host's tests use it too.

#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "for tests"
)]

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Longer than any answer takes. A server that hangs then fails one test and not the whole suite.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A request; `host` is added when it is sent.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
}

pub fn request(method: &str, target: &str) -> Request {
    Request { method: method.into(), target: target.into(), headers: Vec::new(), body: None }
}

pub fn get(target: &str) -> Request {
    request("GET", target)
}

pub fn post(target: &str, content_type: &str, body: impl AsRef<[u8]>) -> Request {
    let body = Some(body.as_ref().to_vec());
    Request { body, ..request("POST", target).header("content-type", content_type) }
}

impl Request {
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    #[must_use]
    pub fn headers<'a>(self, headers: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Self {
        headers.into_iter().fold(self, |request, (name, value)| request.header(name, value))
    }

    /// The bytes on the wire, the body with its length.
    pub fn encode(&self, host: &str) -> Vec<u8> {
        let mut bytes = self.head(host);
        if let Some(body) = &self.body {
            bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
            bytes.extend(body);
        } else {
            bytes.extend(b"\r\n");
        }
        bytes
    }

    /// The bytes on the wire, the body in chunks of at most `size` bytes.
    pub fn encode_chunked(&self, host: &str, size: usize) -> Vec<u8> {
        let mut bytes = self.head(host);
        bytes.extend(b"transfer-encoding: chunked\r\n\r\n");
        for chunk in self.body.as_deref().unwrap_or_default().chunks(size) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    fn head(&self, host: &str) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(name.bytes().chain(*b": "));
            bytes.extend(value.iter().chain(b"\r\n"));
        }
        bytes
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header that may occur only once. Its name is in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} occurs twice: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }
}

/// One connection, kept between exchanges.
pub struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connects, from the given address if there is one: on Linux all of 127.0.0.0/8 is this machine. Requests name the host.
    #[track_caller]
    pub fn open(to: SocketAddr, from: Option<IpAddr>, host: &str) -> Self {
        let connect = || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
            if let Some(from) = from {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            socket.connect_timeout(&to.into(), PATIENCE)?;
            socket.set_tcp_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            io::Result::Ok(socket.into())
        };
        let stream = connect().unwrap_or_else(|error| panic!("cannot connect to {to} from {from:?}: {error}"));
        Self { reader: BufReader::new(stream), host: host.into() }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream().write_all(bytes.as_ref())
    }

    /// The same connection, on which these bytes were sent.
    #[must_use]
    #[track_caller]
    pub fn sending(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.send(bytes).expect("the request can be sent");
        self
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.exchange(&get(target))
    }

    #[track_caller]
    pub fn exchange(&mut self, request: &Request) -> Response {
        self.exchange_bytes(request.encode(&self.host))
    }

    #[track_caller]
    pub fn exchange_bytes(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        let bytes = bytes.as_ref();
        let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]);
        match self.send(bytes).and_then(|()| self.receive_answer(bytes.starts_with(b"HEAD "))) {
            Ok(Some(response)) => response,
            Ok(None) => panic!("{begin:?} got no answer before the connection ended"),
            Err(error) => {
                panic!("{begin:?} got no whole answer, and none is waited for longer than {PATIENCE:?}: {error}")
            }
        }
    }

    /// The next final answer, whole; `None` if the connection was closed before one began. A request of HEAD is exchanged instead.
    pub fn receive(&mut self) -> io::Result<Option<Response>> {
        self.receive_answer(false)
    }

    fn receive_answer(&mut self, is_to_head: bool) -> io::Result<Option<Response>> {
        let mut response = loop {
            match self.receive_head()? {
                None => return Ok(None),
                Some(interim) if interim.status < 200 => {}
                Some(response) => break response,
            }
        };
        if is_to_head || matches!(response.status, 204 | 304) {
            // It has no body, even if its headers announce one.
        } else if response.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.receive_chunk()? {
                response.body.extend(chunk);
            }
        } else if let Some(length) = response.header("content-length") {
            response.body = vec![0; length.parse().expect("a length is a number")];
            self.reader.read_exact(&mut response.body)?;
        } else {
            self.reader.read_to_end(&mut response.body)?;
        }
        Ok(Some(response))
    }

    /// The next head, an interim one (1xx) included.
    pub fn receive_head(&mut self) -> io::Result<Option<Response>> {
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"\r\n\r\n") {
            if self.reader.read_until(b'\n', &mut bytes)? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        head.parse(&bytes).unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&bytes)));
        let headers = head.headers.iter();
        let headers = headers
            .map(|field| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned()))
            .collect();
        Ok(Some(Response { status: head.code.unwrap_or_default(), headers, body: Vec::new() }))
    }

    /// The next chunk of a body; `None` after the last.
    pub fn receive_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else {
            panic!("not the size of a chunk: {line:?}")
        };
        let mut chunk = vec![0; usize::try_from(size).unwrap() + 2];
        self.reader.read_exact(&mut chunk)?;
        chunk.truncate(chunk.len() - 2);
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
