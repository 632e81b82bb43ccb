//! What a public server needs and Spin does not have: limits, and a shutdown that cuts off no request.
//!
//! The most memory that is used with `--max-connections 1200` and `--max-instance-memory 4194304`:
//!
//! | | MiB |
//! |---|---|
//! | the host, its code and the component's | 24 |
//! | 1,200 connections, a buffer and the bookkeeping of 16 KiB each | 19 |
//! | heads, bodies and answers of all connections ([`crate::connections`]) | 40 |
//! | 8 running instances of 4 MiB | 32 |
//! | together, under a limit of 128 MiB | 115 |

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::connections::{Connection, Connections, Socket, Turn};
use crate::log::log;
use crate::server::{Server, response};

/// How many instances run at a time if there are limits. An instance never waits for a client: the beginning of a body is read
/// before it starts, and an answer that is complete is written after it ends. So these are enough to keep the cores busy.
pub(crate) const INSTANCES: u32 = 8;
/// How long a request waits for an instance before it is answered with 503.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a body is read before an instance is made for it: as much as request-info accepts.
const BEGINNING: usize = 64 << 10;
/// The path of the health checks of balancers and probes.
const HEALTH: &str = "/healthz";
/// A drain ends when no connection is open and, for this long, only probes have asked. By then the last request that a
/// balancer sent here has arrived.
const QUIET: Duration = Duration::from_secs(1);

/// All visitors of a server.
pub(crate) struct Visitors {
    connections: Arc<Connections>,
    instances: Option<Arc<Semaphore>>,
    is_draining: AtomicBool,
    /// The time of the last request that was not a probe.
    asked: Mutex<Instant>,
}

impl Visitors {
    /// With at most this many connections and the other limits, or with no limits at all.
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            connections: Arc::new(Connections::new(limit)),
            instances: limit.map(|_| Arc::new(Semaphore::new(INSTANCES as usize))),
            is_draining: AtomicBool::new(false),
            asked: Mutex::new(Instant::now()),
        }
    }

    /// Closes connections that take too long, and logs at most one line a second about those closed at a limit.
    pub(crate) async fn sweep(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            match self.connections.sweep() {
                0 => {}
                closed => log!("closed {closed} connections that were too many, too slow or took too much memory"),
            }
        }
    }

    /// Admits one more connection if there is room, or if room can be made.
    pub(crate) fn admit(&self) -> Option<Arc<Connection>> {
        self.connections.admit()
    }

    /// Answers the requests of a connection until it ends.
    pub(crate) async fn serve(
        self: Arc<Self>,
        server: Arc<Server>,
        (stream, client): (TcpStream, SocketAddr),
        connection: Arc<Connection>,
    ) {
        let service = service_fn(|request| {
            let (visitors, server, connection) = (Arc::clone(&self), Arc::clone(&server), Arc::clone(&connection));
            async move { visitors.answer(&server, request, client, connection).await }
        });
        let io = TokioIo::new(Socket { stream, connection: Arc::clone(&connection) });
        let mut builder = Builder::new(TokioExecutor::new());
        if self.instances.is_some() {
            // A connection is one visitor, also with HTTP/2.
            let window = u32::try_from(BEGINNING).expect("64 KiB fit into 32 bits");
            builder
                .http2()
                .timer(TokioTimer::new())
                .max_concurrent_streams(16)
                .initial_stream_window_size(window)
                .initial_connection_window_size(window)
                .max_send_buf_size(BEGINNING)
                .keep_alive_interval(Duration::from_secs(20));
        }
        let mut conversation = std::pin::pin!(builder.serve_connection(io, service));
        loop {
            tokio::select! {
                _ = conversation.as_mut() => return,
                () = connection.end.notified() => return,
                () = connection.go_away.notified() => conversation.as_mut().graceful_shutdown(),
            }
        }
    }

    async fn answer(
        &self,
        server: &Server,
        request: Request<Incoming>,
        client: SocketAddr,
        connection: Arc<Connection>,
    ) -> anyhow::Result<Response<HyperOutgoingBody>> {
        let is_http2 = request.version() == Version::HTTP_2;
        connection.asked(is_http2);
        let is_probe = request.uri().path() == HEALTH;
        if !is_probe {
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        let is_draining = || self.is_draining.load(Ordering::Acquire);
        let answer = if is_probe && is_draining() {
            Some(response(StatusCode::SERVICE_UNAVAILABLE, "this server is shutting down"))
        } else {
            self.work(server, request, client, &connection).await?
        };
        let leaves = is_draining() || answer.is_none();
        let mut answer =
            answer.unwrap_or_else(|| response(StatusCode::SERVICE_UNAVAILABLE, "too many concurrent requests"));
        if leaves && is_http2 {
            connection.go_away.notify_one();
        } else if leaves {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        connection.answered(usize::try_from(answer.body().size_hint().lower()).unwrap_or(usize::MAX / 2));
        Ok(answer.map(|body| Told { body, connection }.boxed_unsync()))
    }

    /// The server's answer, within the limits. `None` means that every instance was busy for too long.
    async fn work(
        &self,
        server: &Server,
        request: Request<Incoming>,
        client: SocketAddr,
        connection: &Connection,
    ) -> anyhow::Result<Option<Response<HyperOutgoingBody>>> {
        let Some(instances) = &self.instances else { return server.answer(request, client, None).await.map(Some) };
        let (parts, body) = request.into_parts();
        connection.turn(Turn::Body);
        let body = Begun::read(body).await?;
        connection.turn(Turn::Work);
        let permit = tokio::time::timeout(PATIENCE, Arc::clone(instances).acquire_owned()).await;
        let Ok(permit) = permit else { return Ok(None) };
        server.answer(Request::from_parts(parts, body), client, Some(permit?)).await.map(Some)
    }

    /// Drains the server: probes are answered with 503, every other request still gets its answer, and each answer asks the
    /// client to use another connection next. The drain ends when no requests come any more, or at the limit.
    ///
    /// A kept connection stays open until then, because its client may send a request at the moment of a close, and that
    /// request would be lost.
    pub(crate) async fn drain(&self, limit: Duration) {
        let begin = Instant::now();
        log!("stopping after a signal; {} connections are open", self.connections.count().0);
        self.is_draining.store(true, Ordering::Release);
        self.connections.send_away();
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        let (open, busy) = loop {
            ticks.tick().await;
            let (open, busy) = self.connections.count();
            let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let is_quiet = open == 0 && asked.max(begin).elapsed() >= QUIET;
            if is_quiet || begin.elapsed() >= limit {
                break (open, busy);
            }
        };
        log!(
            "stopped after {:.1} s: {busy} connections cut during a request, {} idle ones closed",
            begin.elapsed().as_secs_f64(),
            open - busy
        );
    }
}

/// A request's body whose beginning was read. Without a rest, the beginning is the whole body.
struct Begun {
    beginning: Option<Bytes>,
    rest: Option<Incoming>,
}

impl Begun {
    async fn read(mut body: Incoming) -> hyper::Result<Self> {
        let length = usize::try_from(body.size_hint().lower()).unwrap_or(BEGINNING);
        let mut beginning = Vec::with_capacity(length.min(BEGINNING));
        while beginning.len() <= BEGINNING {
            match body.frame().await.transpose()? {
                // A guest does not see trailers.
                Some(frame) => beginning.extend_from_slice(&frame.into_data().unwrap_or_default()),
                None => return Ok(Self { beginning: Some(beginning.into()), rest: None }),
            }
        }
        Ok(Self { beginning: Some(beginning.into()), rest: Some(body) })
    }
}

impl Body for Begun {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let Some(beginning) = self.beginning.take().filter(|beginning| !beginning.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(beginning))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(context),
            None => Poll::Ready(None),
        }
    }
}

/// A body that reports when the last of it was handed over.
struct Told {
    body: HyperOutgoingBody,
    connection: Arc<Connection>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.connection.answer_is_whole();
    }
}

impl Body for Told {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
