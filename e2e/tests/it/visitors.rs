//! Visitors who send requests while something happens to the cluster, and the result of each request.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// The network namespace of the visitors, which is not part of the cluster.
const NAMESPACE: &str = "/run/netns/edge";
/// Six requests a second from each.
const BETWEEN_REQUESTS: Duration = Duration::from_micros(166_666);
/// How long a visitor waits for an answer, or for a part of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Visitors who still send requests.
pub(crate) struct Visitors {
    stop: Arc<AtomicBool>,
    since: Instant,
    threads: Vec<JoinHandle<Tally>>,
}

/// The results of the requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers by the commit that gave them.
    pub(crate) answers: BTreeMap<String, usize>,
    /// Kept connections that were closed before an answer began, so the request was sent once more (RFC 9110 9.2.2). The
    /// result of the second attempt counts as an answer or a failure.
    pub(crate) retried: usize,
    /// The time of each failure, and what the visitor saw.
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
    pub(crate) lasted: Duration,
}

impl Visitors {
    /// 40 visitors, 240 requests a second.
    pub(crate) fn many(server: SocketAddr) -> Self {
        Self::to(server, 40)
    }

    /// 6 visitors, 36 requests a second.
    pub(crate) fn few(server: SocketAddr) -> Self {
        Self::to(server, 6)
    }

    /// Half of the visitors open a connection for each request, the other half keep theirs.
    fn to(server: SocketAddr, visitors: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let since = Instant::now();
        let threads = (0..visitors)
            .map(|number| {
                let stop = Arc::clone(&stop);
                // The visitors start at different times, so that their requests do not all come at once.
                let first = since + BETWEEN_REQUESTS * number / visitors;
                thread::spawn(move || visit(server, first, number % 2 == 0, &stop))
            })
            .collect();
        Self { stop, since, threads }
    }

    /// Stops the visitors and counts the results.
    pub(crate) fn leave(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally { lasted: self.since.elapsed(), ..Tally::default() };
        for thread in self.threads {
            let tally = thread.join().expect("a visitor does not panic");
            for (commit, answers) in tally.answers {
                *total.answers.entry(commit).or_default() += answers;
            }
            total.failures.extend(tally.failures);
            total.retried += tally.retried;
            total.slowest = total.slowest.max(tally.slowest);
        }
        total
    }
}

impl Tally {
    /// Panics if there are failures.
    pub(crate) fn expect_no_failure(&self) {
        assert!(
            self.failures.is_empty(),
            "{} of {} requests failed:\n{}",
            self.failures.len(),
            self.requests(),
            self.failures.join("\n")
        );
    }

    pub(crate) fn requests(&self) -> usize {
        self.answers.values().sum::<usize>() + self.failures.len()
    }
}

/// Sends one GET from the visitors' network namespace.
pub(crate) fn get(server: SocketAddr, target: &str) -> io::Result<Value> {
    let target = target.to_owned();
    let request = move || -> io::Result<Value> {
        enter_namespace()?;
        let mut connection = Connection::open(server)?;
        Ok(connection.ask(&target, "close")?)
    };
    thread::spawn(request).join().expect("a visitor does not panic")
}

/// Moves the calling thread to the visitors' network namespace.
pub(crate) fn enter_namespace() -> io::Result<()> {
    Ok(move_into_link_name_space(File::open(NAMESPACE)?.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn visit(server: SocketAddr, first: Instant, keep: bool, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = enter_namespace() {
        tally.failures.push(format!("{NAMESPACE}: {error}"));
        return tally;
    }
    let mut kept = None;
    let mut due = first;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let started = Instant::now();
        match request(server, keep, &mut kept, &mut tally.retried) {
            Ok(commit) => *tally.answers.entry(commit).or_default() += 1,
            Err(error) => {
                let (since, took) = (started - first, started.elapsed());
                tally.failures.push(format!(
                    "{:6.1} s  {error} after {:.3} s",
                    since.as_secs_f32(),
                    took.as_secs_f32()
                ));
            }
        }
        tally.slowest = tally.slowest.max(started.elapsed());
        // After a slow answer, the visitor does not send the missed requests.
        due = (due + BETWEEN_REQUESTS).max(Instant::now());
    }
    tally
}

/// The commit that answered.
fn request(server: SocketAddr, keep: bool, kept: &mut Option<Connection>, retried: &mut usize) -> io::Result<String> {
    let mut answer = None;
    if let Some(mut connection) = kept.take() {
        match connection.ask("/?format=json", "keep-alive") {
            Ok(body) => {
                *kept = connection.may_be_kept.then_some(connection);
                answer = Some(body);
            }
            Err(End::BeforeAnswer(_)) => *retried += 1,
            Err(End::Failed(error)) => return Err(error),
        }
    }
    let answer = if let Some(answer) = answer {
        answer
    } else {
        let mut connection = Connection::open(server)?;
        let answer = connection.ask("/?format=json", if keep { "keep-alive" } else { "close" });
        *kept = (keep && connection.may_be_kept).then_some(connection);
        answer?
    };
    let commit = answer["served_by"]["commit"].as_str();
    commit.map(str::to_owned).ok_or_else(|| io::Error::other(format!("no commit in {answer}")))
}

impl From<End> for io::Error {
    fn from((End::BeforeAnswer(error) | End::Failed(error)): End) -> Self {
        error
    }
}

struct Connection {
    stream: TcpStream,
    /// False once an answer says that it is the last (RFC 9112 9.6).
    may_be_kept: bool,
}

/// Why a request got no answer.
enum End {
    /// The connection ended before any byte of an answer. The server may have closed it before it saw the request.
    BeforeAnswer(io::Error),
    Failed(io::Error),
}

impl Connection {
    fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, may_be_kept: true })
    }

    /// The body of a 200 with a Content-Length; anything else is a failure.
    fn ask(&mut self, target: &str, connection: &str) -> Result<Value, End> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: request-info.test\r\nconnection: {connection}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).map_err(End::BeforeAnswer)?;
        let mut bytes = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let read = match self.stream.read(&mut chunk) {
                Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "connection closed")),
                other => other,
            };
            match read {
                Ok(length) => bytes.extend(&chunk[..length]),
                Err(error) if bytes.is_empty() && error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(End::BeforeAnswer(error));
                }
                Err(error) => {
                    return Err(End::Failed(io::Error::new(
                        error.kind(),
                        format!("{error} after {} bytes", bytes.len()),
                    )));
                }
            }
            if let Some((body, is_last)) = whole_body(&bytes).map_err(End::Failed)? {
                self.may_be_kept = !is_last;
                return serde_json::from_slice(body).map_err(|error| End::Failed(error.into()));
            }
        }
    }
}

/// The body of the answer in `bytes`, once it is complete, and whether the server closes the connection after it.
fn whole_body(bytes: &[u8]) -> io::Result<Option<(&[u8], bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(io::Error::other)? else { return Ok(None) };
    if response.code != Some(200) {
        return Err(io::Error::other(format!(
            "status {:?}: {}",
            response.code,
            String::from_utf8_lossy(&bytes[head..])
        )));
    }
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    };
    let length = value("content-length").and_then(|value| value.parse().ok());
    let length: usize = length.ok_or_else(|| io::Error::other("no Content-Length"))?;
    let is_last = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(bytes.get(head..head + length).map(|body| (body, is_last)))
}
