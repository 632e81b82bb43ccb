//! The open connections, what each of them waits for, and which one is closed if there are too many.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How long the host waits for a head, for the beginning of a body, and for a client to read its answer.
const SLOW: Duration = Duration::from_secs(10);
/// How long a connection is kept for a next request. This is longer than the 60 s of most proxies, which must close first,
/// because a request on a closing connection is lost.
const IDLE: Duration = Duration::from_secs(75);
/// How many bytes of heads, bodies and answers all connections together may hold; see [`crate::visitors`].
const HELD: usize = 40 << 20;

/// Whose turn it is on a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The client's: a head has begun, or it is the first one.
    Head,
    /// The client's: the beginning of a body.
    Body,
    /// The host's.
    Work,
    /// The client's: to read its answer.
    Answer,
    /// The client's: a next request, if it has one.
    Next,
}

/// All connections that are open.
pub(crate) struct Connections {
    /// `None` means that there are no limits.
    limit: Option<usize>,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    held: AtomicUsize,
    /// Connections that were closed at a limit since the last line about them.
    closed: AtomicUsize,
}

/// One connection.
pub(crate) struct Connection {
    number: u64,
    all: Arc<Connections>,
    state: Mutex<State>,
    /// Asks the connection to end at once.
    pub(crate) end: Notify,
    /// Asks the connection to take no further request, which HTTP/2 can say at any time.
    pub(crate) go_away: Notify,
}

struct State {
    turn: Turn,
    since: Instant,
    /// Bytes that the host holds for it.
    held: usize,
    answer_is_whole: bool,
    is_http2: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic never leaves the data behind these locks half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self {
            limit,
            open: Mutex::default(),
            next: AtomicU64::default(),
            held: AtomicUsize::default(),
            closed: AtomicUsize::default(),
        }
    }

    /// Admits a connection. At the limit, closes the connection for which the host has waited longest, or this one if it waits for
    /// none.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut open = lock(&self.open);
        if self.limit.is_some_and(|limit| open.len() >= limit) {
            self.closed.fetch_add(1, Ordering::Relaxed);
            // A client that sends its head at once is rarely the one that the host has waited for longest, even if many others hold
            // connections only to block. A kept connection is harmless, so it is closed only if no other can be.
            let waited_for = open.values().filter_map(|connection| {
                let state = lock(&connection.state);
                let is_young = state.since.elapsed() < Duration::from_secs(1);
                let is_good = state.turn == Turn::Next || (state.turn == Turn::Answer && is_young);
                (state.turn != Turn::Work).then_some((is_good, state.since, connection.number))
            });
            let (_, _, number) = waited_for.min()?;
            if let Some(connection) = open.remove(&number) {
                connection.end.notify_one();
            }
        }
        let connection = Arc::new(Connection {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            all: Arc::clone(self),
            state: Mutex::new(State {
                turn: Turn::Head,
                since: Instant::now(),
                held: 0,
                answer_is_whole: false,
                is_http2: false,
            }),
            end: Notify::new(),
            go_away: Notify::new(),
        });
        open.insert(connection.number, Arc::clone(&connection));
        Some(connection)
    }

    /// How many connections are open, and how many of these are in the middle of a request.
    pub(crate) fn count(&self) -> (usize, usize) {
        let open = lock(&self.open);
        let busy = open.values().filter(|connection| lock(&connection.state).is_in_a_request()).count();
        (open.len(), busy)
    }

    /// Tells those that speak HTTP/2 to take no further request.
    pub(crate) fn send_away(&self) {
        let open = lock(&self.open);
        for connection in open.values().filter(|connection| lock(&connection.state).is_http2) {
            connection.go_away.notify_one();
        }
    }

    /// Closes the connections that took too long. Returns how many were closed at any limit since the last call.
    pub(crate) fn sweep(&self) -> usize {
        if self.limit.is_some() {
            lock(&self.open).retain(|_, connection| {
                let state = lock(&connection.state);
                let limit = match state.turn {
                    Turn::Work => return true,
                    Turn::Next => IDLE,
                    Turn::Head | Turn::Body | Turn::Answer => SLOW,
                };
                let stays = state.since.elapsed() <= limit;
                if !stays {
                    self.closed.fetch_add(usize::from(state.turn != Turn::Next), Ordering::Relaxed);
                    connection.end.notify_one();
                }
                stays
            });
        }
        self.closed.swap(0, Ordering::Relaxed)
    }

    /// If all connections together hold too much, closes the one that holds most.
    fn relieve(&self) {
        if self.limit.is_none() || self.held.load(Ordering::Relaxed) <= HELD {
            return;
        }
        let mut open = lock(&self.open);
        let holders = open.values().filter_map(|connection| {
            let state = lock(&connection.state);
            (state.turn != Turn::Work).then_some((state.held, connection.number))
        });
        if let Some(connection) = holders.max().and_then(|(_, number)| open.remove(&number)) {
            self.closed.fetch_add(1, Ordering::Relaxed);
            connection.release();
            connection.end.notify_one();
        }
    }
}

impl State {
    fn is_in_a_request(&self) -> bool {
        match self.turn {
            Turn::Head => self.held > 0,
            Turn::Body | Turn::Work | Turn::Answer => true,
            Turn::Next => false,
        }
    }
}

impl Connection {
    /// Sets whose turn it is.
    pub(crate) fn turn(&self, turn: Turn) {
        let mut state = lock(&self.state);
        (state.turn, state.since) = (turn, Instant::now());
    }

    /// A request has come, over HTTP/2 or not.
    pub(crate) fn asked(&self, is_http2: bool) {
        lock(&self.state).is_http2 = is_http2;
        self.turn(Turn::Work);
    }

    /// An answer of this many bytes is ready.
    pub(crate) fn answered(&self, length: usize) {
        lock(&self.state).answer_is_whole = false;
        self.turn(Turn::Answer);
        self.hold(length);
    }

    /// The end of an answer was handed over to be written.
    pub(crate) fn answer_is_whole(&self) {
        lock(&self.state).answer_is_whole = true;
    }

    fn hold(&self, bytes: usize) {
        lock(&self.state).held += bytes;
        self.all.held.fetch_add(bytes, Ordering::Relaxed);
        self.all.relieve();
    }

    fn release(&self) {
        let bytes = std::mem::take(&mut lock(&self.state).held);
        self.all.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn received(&self, bytes: usize) {
        let turn = {
            let mut state = lock(&self.state);
            // HTTP/2 also has frames that are not requests.
            if state.turn == Turn::Next && !state.is_http2 {
                (state.turn, state.since) = (Turn::Head, Instant::now());
            }
            state.turn
        };
        if matches!(turn, Turn::Head | Turn::Body) {
            self.hold(bytes);
        }
    }

    fn sent(&self) {
        let mut state = lock(&self.state);
        if state.turn == Turn::Answer {
            state.since = Instant::now();
        }
    }

    fn flushed(&self) {
        let mut state = lock(&self.state);
        if state.turn == Turn::Answer && state.answer_is_whole {
            (state.turn, state.since) = (Turn::Next, Instant::now());
            self.all.held.fetch_sub(std::mem::take(&mut state.held), Ordering::Relaxed);
        }
    }
}

/// A connection's socket, which reports what passes through it. When it is dropped, the connection has ended.
pub(crate) struct Socket {
    pub(crate) stream: TcpStream,
    pub(crate) connection: Arc<Connection>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        lock(&self.connection.all.open).remove(&self.connection.number);
        self.connection.release();
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.connection.received(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.connection.sent();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bytes))?;
        self.connection.sent();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
