//! A small HTTP/1.1 client on a plain socket, so that a test decides about every byte that is sent.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

/// Longer than any answer takes. A server that hangs then fails one test and not the whole suite.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is asked; `host` is added when it is sent.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Option<Vec<u8>>,
}

pub(crate) fn request(method: &str, target: &str) -> Request {
    Request { method: method.into(), target: target.into(), headers: Vec::new(), body: None }
}

pub(crate) fn get(target: &str) -> Request {
    request("GET", target)
}

pub(crate) fn post(target: &str, content_type: &str, body: impl AsRef<[u8]>) -> Request {
    let body = Some(body.as_ref().to_vec());
    Request { body, ..request("POST", target).header("content-type", content_type) }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn headers<'a>(self, headers: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Self {
        headers.into_iter().fold(self, |request, (name, value)| request.header(name, value))
    }

    /// The bytes on the wire, the body with its length.
    pub(crate) fn encode(&self, host: &str) -> Vec<u8> {
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
    pub(crate) fn encode_chunked(&self, host: &str, size: usize) -> Vec<u8> {
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
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The value of a header that may stand there once.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} stands there twice: {:?}", self.headers);
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }
}

/// One connection, kept between exchanges.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    host: String,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects, from the given address if there is one: on Linux all of 127.0.0.0/8 is this machine.
    pub(crate) fn open(to: SocketAddr, from: Option<IpAddr>, host: &str) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect(&to.into())?;
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, host: host.into(), unread: Vec::new() })
    }

    pub(crate) fn exchange(&mut self, request: &Request) -> Response {
        let bytes = request.encode(&self.host);
        self.exchange_bytes(&bytes, &request.method)
    }

    pub(crate) fn exchange_bytes(&mut self, bytes: &[u8], method: &str) -> Response {
        self.send(bytes).expect("the request is sent");
        self.receive(method).expect("the answer is read").expect("there is an answer")
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next final answer, whole; `None` if the connection was closed before one began.
    pub(crate) fn receive(&mut self, method: &str) -> io::Result<Option<Response>> {
        loop {
            match self.receive_head()? {
                None => return Ok(None),
                Some(interim) if interim.status < 200 => {}
                Some(mut response) => {
                    if method != "HEAD" && !matches!(response.status, 204 | 304) {
                        response.body = self.receive_body(&response)?;
                    }
                    return Ok(Some(response));
                }
            }
        }
    }

    /// The next head, an interim one (1xx) included.
    pub(crate) fn receive_head(&mut self) -> io::Result<Option<Response>> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut head = httparse::Response::new(&mut fields);
            let parsed = head.parse(&self.unread).map_err(|error| invalid(&format!("{error} in {:?}", self.unread)))?;
            if let httparse::Status::Complete(length) = parsed {
                let headers = head
                    .headers
                    .iter()
                    .map(|field| (field.name.to_ascii_lowercase(), String::from_utf8_lossy(field.value).into_owned()));
                let response =
                    Response { status: head.code.unwrap_or_default(), headers: headers.collect(), body: Vec::new() };
                self.unread.drain(..length);
                return Ok(Some(response));
            }
            if self.fill()? == 0 {
                return if self.unread.is_empty() { Ok(None) } else { Err(invalid("the answer ends in its head")) };
            }
        }
    }

    fn receive_body(&mut self, response: &Response) -> io::Result<Vec<u8>> {
        if response.header("transfer-encoding").is_some() {
            return Err(invalid("the answer is chunked, and was to have a length"));
        }
        let length = response.header("content-length").map(|length| length.parse().expect("a length is a number"));
        while length.is_none_or(|length: usize| self.unread.len() < length) {
            if self.fill()? == 0 {
                return match length {
                    None => Ok(std::mem::take(&mut self.unread)),
                    Some(_) => Err(invalid("the answer ends in its body")),
                };
            }
        }
        Ok(self.unread.drain(..length.unwrap_or_default()).collect())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let count = self.stream.read(&mut buffer)?;
        self.unread.extend(&buffer[..count]);
        Ok(count)
    }
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
