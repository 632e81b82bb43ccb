//! Between the deployer and the API server: a network that misbehaves on request, and an HTTP proxy.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, JoinSet};

use crate::network::Tls;

/// One request of the deployer.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) at: Instant,
}

impl Asked {
    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    /// Whether this is a write to a resource of this plural, and not a dry run.
    pub(crate) fn changes(&self, plural: &str) -> bool {
        self.method != "GET" && self.target.contains(&format!("/{plural}")) && !self.target.contains("dryRun")
    }

    pub(crate) fn watches(&self, plural: &str) -> bool {
        self.target.contains(&format!("/{plural}?")) && self.target.contains("watch=true")
    }
}

/// The fate of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is answered as without this network.
    Answered,
    /// Every byte of the answer is delayed by this time.
    Late(Duration),
    /// The API server carries it out, but its answer is cut off before the first byte.
    AnswerLost,
    /// The API server never receives it.
    Lost,
    /// No answer comes.
    Unanswered,
    /// This status is returned at once, with the header `Retry-After` if a number of seconds is given.
    Status(u16, Option<u64>),
}

/// Speaks TLS as the API server does, and decides the fate of each request.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    cut: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start(
        api_server: u16,
        tls: &Tls,
        decide: impl Fn(&Asked) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let (port, listener) = listener().await;
        let (asked, cut) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<Notify>::default());
        let passage =
            Arc::new(Passage { api_server, tls: tls.clone(), asked: Arc::clone(&asked), decide: Box::new(decide) });
        let until = Arc::clone(&cut);
        let task = each(listener, move |stream| {
            let (passage, cut) = (Arc::clone(&passage), Arc::clone(&until));
            async move {
                tokio::select! {
                    // A client may disconnect early.
                    _ = passage.pass(stream) => {}
                    () = cut.notified() => {}
                }
            }
        });
        Self { port, asked, cut, task }
    }

    /// All requests so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the lock is not poisoned").clone()
    }

    /// Ends all open connections.
    pub(crate) fn cut(&self) {
        self.cut.notify_waiters();
    }
}

struct Passage {
    api_server: u16,
    tls: Tls,
    asked: Arc<Mutex<Vec<Asked>>>,
    decide: Box<dyn Fn(&Asked) -> Fate + Send + Sync>,
}

impl Passage {
    /// Serves one request. The next one needs a connection of its own.
    async fn pass(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut client = BufReader::new(self.tls.acceptor.accept(stream).await?);
        let (head, body) = request(&mut client).await?;
        let mut words = head.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let asked = Asked { method: word(), target: word(), at: Instant::now() };
        self.asked.lock().expect("the lock is not poisoned").push(asked.clone());
        let fate = (self.decide)(&asked);
        match fate {
            Fate::Lost => return Ok(()),
            Fate::Unanswered => std::future::pending().await,
            Fate::Status(status, retry_after) => return refuse(&mut client, status, retry_after).await,
            Fate::Answered | Fate::Late(_) | Fate::AnswerLost => {}
        }
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.api_server)).await?;
        let name = Ipv4Addr::LOCALHOST.into();
        let mut server = self.tls.connector.connect(rustls::pki_types::ServerName::IpAddress(name), stream).await?;
        server.write_all(head.replacen("\r\n", "\r\nConnection: close\r\n", 1).as_bytes()).await?;
        server.write_all(&body).await?;
        let delay = match fate {
            Fate::Late(delay) => delay,
            Fate::AnswerLost => return server.read_u8().await.map(drop),
            _ => Duration::ZERO,
        };
        let (mut rest, mut client) = tokio::io::split(client);
        tokio::select! {
            copied = late(&mut server, &mut client, delay) => copied,
            // The client sends nothing more; a read ends when it disconnects.
            gone = rest.read_u8() => gone.map(drop),
        }
    }
}

/// Copies, with this delay for every byte.
async fn late<R, W>(mut from: R, to: &mut W, delay: Duration) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let read = async move {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            if sender.send((tokio::time::Instant::now() + delay, bytes[..count].to_vec())).is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            to.write_all(&bytes).await?;
            to.flush().await?;
        }
        to.shutdown().await
    };
    tokio::join!(read, write).1
}

/// Reads a request: its head, unchanged, and its body.
async fn request(stream: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let start = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = head[start..].trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

/// A refusal like the API server's, with an object of the kind Status.
async fn refuse(stream: &mut (impl AsyncWrite + Unpin), status: u16, retry_after: Option<u64>) -> std::io::Result<()> {
    let reason = match status {
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("the network of the tests: {reason}"), "reason": reason, "code": status,
    });
    let retry_after = retry_after.map_or_else(String::new, |seconds| format!("Retry-After: {seconds}\r\n"));
    let (body, kind) = (body.to_string(), "Content-Type: application/json");
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\n{retry_after}{kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}

/// An HTTP proxy that connects to the API server, whichever host is requested.
pub(crate) struct HttpProxy {
    pub(crate) port: u16,
    targets: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpProxy {
    pub(crate) async fn start(api_server: u16) -> Self {
        let (port, listener) = listener().await;
        let targets = Arc::<Mutex<Vec<String>>>::default();
        let shared = Arc::clone(&targets);
        let task = each(listener, move |stream| {
            let targets = Arc::clone(&shared);
            async move {
                drop(tunnel(BufReader::new(stream), api_server, &targets).await);
            }
        });
        Self { port, targets, task }
    }

    /// The hosts that were requested so far.
    pub(crate) fn targets(&self) -> Vec<String> {
        self.targets.lock().expect("the lock is not poisoned").clone()
    }
}

async fn tunnel(mut client: BufReader<TcpStream>, port: u16, targets: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let (head, _) = request(&mut client).await?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    targets.lock().expect("the lock is not poisoned").push(target);
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn listener() -> (u16, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has a free port");
    (listener.local_addr().expect("a bound listener has an address").port(), listener)
}

/// Serves every connection in a task of its own, until the returned task is aborted.
fn each<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
        }
    })
}
