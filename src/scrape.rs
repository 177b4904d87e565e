//! The metrics page over HTTP, on a TCP address or a Unix socket, where an operator asks for it: `/metrics` and
//! `/healthz`. Reads counters; asks nothing of the vault, and a slow or hostile reader takes no more than a few
//! connections, a few KiB and a little time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::config::MetricsAt;
use crate::door::{self, Access, SocketFile};
use crate::exposition::{self, Page};
use crate::front::Front;
use crate::patience::Pace;
use crate::sampler::Sampler;
use crate::systemd::Pulse;

/// Connections at one time; for a further one the longest there gives way, or those who hang would hold all places.
const MOST_CONNECTIONS: usize = 8;
/// Connections that wait to be taken on a TCP address: no more than come to their turn in a few seconds.
const BACKLOG: u32 = 64;
/// Connections taken in a second, after a burst of [`MOST_CONNECTIONS`].
const CONNECTIONS_PER_SECOND: u32 = 20;
/// A request line with its headers takes no more than this, in bytes (hyper's least).
const HEAD_BYTES: usize = 8 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// The head must be whole in this time ...
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// ... and the reply read in this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to rest after `accept` failed (no descriptors, no memory).
const ACCEPT_REST: Duration = Duration::from_secs(1);
/// How often the writer's pulse is felt.
const PULSE_INTERVAL: Duration = Duration::from_secs(1);
/// A writer that makes no progress for so long is not healthy.
const STALLED: Duration = Duration::from_secs(15);

/// The listener.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl std::fmt::Display for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => write!(f, "http://{address}/metrics"),
                Err(error) => error.fmt(f),
            },
            Listener::Unix(_, path) => path.display().fmt(f),
        }
    }
}

/// Listens; gives a socket file, too, that its caller keeps for as long, and that is removed when it is dropped.
///
/// # Errors
/// Why not, with the next step.
pub async fn bind(at: &MetricsAt, access: Access) -> Result<(Listener, Option<SocketFile>), String> {
    match at {
        MetricsAt::Tcp(address) => {
            listen(*address).map(|listener| (Listener::Tcp(listener), None)).map_err(|error| {
                let next = if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) {
                    "under systemd the unit forbids it until metrics-tcp.conf is installed as a drop-in"
                } else {
                    "choose another address, or leave metrics out"
                };
                format!("metrics cannot be served on {address}: {error}: {next}")
            })
        }
        MetricsAt::Unix(path) => door::bind(path, access)
            .map(|(listener, file)| (Listener::Unix(listener, path.clone()), Some(file)))
            .map_err(|error| format!("metrics cannot be served: {error}")),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Over a restart the last connections of the old daemon may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What the page is made from.
#[derive(Debug)]
pub struct Source {
    front: Arc<Front>,
    sampler: Arc<Sampler>,
    drain: CancellationToken,
    /// Since when the writer has had work and made no progress.
    stalled_since: Mutex<Option<Instant>>,
}

impl Source {
    /// Of this daemon.
    pub fn new(front: Arc<Front>, drain: CancellationToken) -> Arc<Source> {
        let sampler = Sampler::new(&front.data_dir, front.metrics.started);
        Arc::new(Source { front, sampler, drain, stalled_since: Mutex::new(None) })
    }

    /// Feels the writer's pulse for ever.
    async fn watch(&self) {
        let mut pulse = Pulse::new(self.front.metrics.clone());
        loop {
            let before = Instant::now();
            tokio::time::sleep(PULSE_INTERVAL).await;
            let beats = pulse.beats();
            let mut since = self.stalled_since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = if beats { None } else { since.or(Some(before)) };
        }
    }

    fn stalled(&self, now: Instant) -> Duration {
        let since = *self.stalled_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    async fn page(&self) -> Page {
        let figures = self.sampler.figures().await;
        let (front, now) = (&self.front, Instant::now());
        Page {
            metrics: front.metrics.clone(),
            queue_bytes: front.budget.used_bytes(),
            queue_capacity_bytes: front.budget.limit_bytes(),
            connections_limit: front.limits.max_connections,
            users: front.users.connected(),
            quota_waits: front.users.waits(),
            writer_stalled: self.stalled(now),
            start_seconds: self.sampler.start_seconds(),
            figures,
            now,
        }
    }

    /// Why batches are not taken now, if they are not.
    fn trouble(&self) -> Option<String> {
        let metrics = &self.front.metrics;
        let stalled = self.stalled(Instant::now());
        if metrics.failed.load(Relaxed) {
            Some("failed: the writer has stopped after an error, lotlogd exits".to_owned())
        } else if self.drain.is_cancelled() {
            Some("draining: lotlogd stops".to_owned())
        } else if stalled >= STALLED {
            Some(format!("stalled: the writer has made no progress for {} s", stalled.as_secs()))
        } else if metrics.no_space.load(Relaxed) {
            Some("no space: batches are refused".to_owned())
        } else {
            None
        }
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<String> {
        let plain = |status: StatusCode, text: String| {
            let mut response = Response::new(text + "\n");
            *response.status_mut() = status;
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => {
                let mut response = Response::new(self.page().await.text());
                let kind = HeaderValue::from_static(exposition::CONTENT_TYPE);
                response.headers_mut().insert(CONTENT_TYPE, kind);
                response
            }
            "/healthz" => match self.trouble() {
                None => plain(StatusCode::OK, "ok".to_owned()),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            _ => plain(StatusCode::NOT_FOUND, "here are /metrics and /healthz".to_owned()),
        }
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: Listener, source: Arc<Source>) {
    tokio::select! {
        () = source.watch() => {}
        () = accept(listener, &source) => {}
    }
}

async fn accept(listener: Listener, source: &Arc<Source>) {
    let mut places: VecDeque<AbortHandle> = VecDeque::new();
    let mut pace = Pace::new(CONNECTIONS_PER_SECOND, MOST_CONNECTIONS, Instant::now());
    loop {
        let begun = match &listener {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| spawn(stream, source)),
            Listener::Unix(listener, _) => listener.accept().await.map(|(stream, _)| spawn(stream, source)),
        };
        let rest = match begun {
            Ok(connection) => {
                places.retain(|connection| !connection.is_finished());
                if places.len() >= MOST_CONNECTIONS
                    && let Some(oldest) = places.pop_front()
                {
                    oldest.abort();
                }
                places.push_back(connection);
                pace.came(Instant::now()).unwrap_or_default()
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted: trying again");
                ACCEPT_REST
            }
        };
        tokio::time::sleep(rest).await;
    }
}

fn spawn<S>(stream: S, source: &Arc<Source>) -> AbortHandle
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let source = source.clone();
    let served = tokio::spawn(async move {
        let service = service_fn(|request| {
            let source = source.clone();
            async move { Ok::<_, Infallible>(source.answer(&request).await) }
        });
        let served = http1::Builder::new()
            .keep_alive(false)
            // Who has asked may shut down its writing half.
            .half_close(true)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        match tokio::time::timeout(TIMEOUT, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics ended"),
            Err(_) => tracing::debug!("a connection for metrics took too long"),
        }
    });
    served.abort_handle()
}

/// Whether the address could be had now.
///
/// # Errors
/// Why not.
pub fn look(at: &MetricsAt) -> Result<(), String> {
    let free = match at {
        MetricsAt::Tcp(address) => std::net::TcpListener::bind(address).map(drop),
        MetricsAt::Unix(path) => door::look_at_socket(path).map_err(io::Error::other),
    };
    free.map_err(|error| format!("{at}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn health_follows_the_daemon_and_tells_why() {
        let metrics = Arc::new(Metrics::default());
        let front = Front::new(&Config::default(), metrics.clone());
        let drain = CancellationToken::new();
        let source = Source::new(front, drain.clone());
        let says = |word: &str| source.trouble().is_some_and(|why| why.starts_with(word));
        assert_eq!(source.trouble(), None);
        *source.stalled_since.lock().unwrap() = Instant::now().checked_sub(STALLED - PULSE_INTERVAL);
        assert_eq!(source.trouble(), None, "a slow disk is no dead one");
        *source.stalled_since.lock().unwrap() = Instant::now().checked_sub(STALLED);
        assert!(says("stalled"));
        *source.stalled_since.lock().unwrap() = None;
        metrics.no_space.store(true, Relaxed);
        assert!(says("no space"));
        drain.cancel();
        assert!(says("draining"));
        metrics.failed.store(true, Relaxed);
        assert!(says("failed"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_without_a_pulse_is_stalled_since_the_last_one() {
        let metrics = Arc::new(Metrics::default());
        let source = Source::new(Front::new(&Config::default(), metrics.clone()), CancellationToken::new());
        let since = || *source.stalled_since.lock().unwrap();
        let watched = async |seconds| {
            let _ = tokio::time::timeout(PULSE_INTERVAL * seconds + PULSE_INTERVAL / 2, source.watch()).await;
        };
        metrics.idle.store(true, Relaxed);
        watched(2).await;
        assert_eq!(since(), None, "idle");
        metrics.idle.store(false, Relaxed);
        watched(1).await;
        let first = since();
        assert!(first.is_some(), "busy without progress");
        watched(2).await;
        assert_eq!(since(), first, "stalled since then");
        metrics.idle.store(true, Relaxed);
        watched(1).await;
        assert_eq!(since(), None, "idle again");
    }
}
