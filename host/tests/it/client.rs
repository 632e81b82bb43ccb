//! Small clients, so that a test decides about every byte that is sent.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than anything here takes, so that a host which hangs fails the test.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// The first value of a header, whose name is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A connection that speaks HTTP/1, kept between requests.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// Our own end, which is the client's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }

    /// The other direction of the same connection, for a client that sends and receives at once.
    pub(crate) fn sender(&self) -> TcpStream {
        self.0.get_ref().try_clone().unwrap()
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.get_mut().write_all(bytes.as_ref()).expect("the request is sent");
    }

    pub(crate) fn get(&mut self, target: &str) -> Answer {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: example.com\r\n\r\n"))
    }

    pub(crate) fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes);
        self.receive().expect("the answer is whole").expect("there is an answer")
    }

    /// The next answer; `None` if the connection was closed before one began.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Answer>> {
        let Some(mut answer) = self.receive_head()? else { return Ok(None) };
        if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.receive_chunk()? {
                answer.body.extend(chunk);
            }
        } else {
            let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a number"));
            answer.body.resize(length, 0);
            self.0.read_exact(&mut answer.body)?;
        }
        Ok(Some(answer))
    }

    pub(crate) fn receive_head(&mut self) -> io::Result<Option<Answer>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read_until(b'\n', &mut head) {
                Ok(1..) => {}
                Ok(0) if head.is_empty() => return Ok(None),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                // What a client sent after the end of the connection makes the end a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset && head.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut parsed = httparse::Response::new(&mut fields);
        parsed.parse(&head).expect("the head is well formed");
        let headers = parsed.headers.iter().map(|field| {
            (field.name.to_ascii_lowercase(), String::from_utf8(field.value.to_vec()).expect("the value is UTF-8"))
        });
        Ok(Some(Answer {
            status: parsed.code.expect("there is a status"),
            headers: headers.collect(),
            body: Vec::new(),
        }))
    }

    /// The next chunk of a body; `None` after the last.
    pub(crate) fn receive_chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if self.0.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Ok(httparse::Status::Complete((_, size))) = httparse::parse_chunk_size(&line) else {
            panic!("not the size of a chunk: {line:?}")
        };
        let mut chunk = vec![0; usize::try_from(size).unwrap() + 2];
        self.0.read_exact(&mut chunk)?;
        chunk.truncate(chunk.len() - 2);
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

/// One request over HTTP/2 by prior knowledge, without a Host header.
pub(crate) fn get_over_http2(to: SocketAddr, url: &str) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let exchange = async {
        let stream = tokio::net::TcpStream::connect(to).await?;
        let (mut client, connection) = h2::client::handshake(stream).await?;
        tokio::spawn(connection);
        let request = http::Request::get(url).body(())?;
        let (answer, _) = client.send_request(request, true)?;
        let (head, mut incoming) = answer.await?.into_parts();
        let mut body = Vec::new();
        while let Some(part) = incoming.data().await {
            body.extend_from_slice(&part?);
        }
        anyhow::Ok(Answer { status: head.status.as_u16(), headers: Vec::new(), body })
    };
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await });
    outcome.expect("the host answers in time").expect("the host speaks HTTP/2")
}
