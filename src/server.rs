//! The server: accepts, turns away, counts, and drains. Knows no requests.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::batch::{Code, Refusal};
use crate::connection;
pub use crate::door::{BindError, SocketFile, bind, look_at_socket};
pub use crate::front::Front;
use crate::metrics::Metrics;
use crate::parting;
use crate::patience::Pace;
use crate::queue::Sender;
use crate::users::Guest;

/// How long to rest after `accept` failed (no descriptors, no memory).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// After so many connections in a row those that are there have a turn: or a storm of new ones would overflow the
/// runtime's local queue, behind which answers from the vault would then wait.
const ACCEPTS_IN_A_ROW: u32 = 16;
/// Connections taken in a second, after a burst of as many as may be open: a storm must not have the processor.
const ACCEPTS_PER_SECOND: u32 = 2000;

/// Serves until `drain` is cancelled and every connection has ended. No [`Sender`] survives its return. Its
/// caller imposes the deadline; dropped before, it ends every connection where it stands.
pub async fn serve(listener: UnixListener, front: Arc<Front>, sender: Sender, drain: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut in_a_row = 0;
    let mut pace = Pace::new(ACCEPTS_PER_SECOND, front.limits.max_connections, Instant::now());
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                admit(stream, &front, &sender, &drain, &mut tasks);
                in_a_row += 1;
                if let Some(early) = pace.came(Instant::now()) {
                    tokio::time::sleep(early).await;
                } else if in_a_row >= ACCEPTS_IN_A_ROW {
                    in_a_row = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted: trying again");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
    drop(listener);
    drop(sender);
    while tasks.join_next().await.is_some() {}
}

fn admit(
    stream: UnixStream,
    front: &Arc<Front>,
    sender: &Sender,
    drain: &CancellationToken,
    tasks: &mut JoinSet<()>,
) {
    let guest = match seat(&stream, front) {
        Ok(guest) => guest,
        Err(why) => return turn_away(stream, &Refusal::new(Code::Busy, why), front, tasks),
    };
    front.metrics.connections.fetch_add(1, Relaxed);
    let open = Open(front.metrics.clone());
    let (front, sender, drain) = (front.clone(), sender.clone(), drain.clone());
    tasks.spawn(async move {
        let _open = open;
        if let Some(refusal) = front.forbids(&stream).await {
            drop((sender, guest));
            count(&refusal, &front.metrics);
            parting::say_no(&stream, &refusal);
            parting::linger_if_few(&stream, &front.lingering).await;
        } else {
            connection::serve(stream, guest, front, sender, drain).await;
        }
    });
}

/// A place for a connection, or why there is none.
fn seat(stream: &UnixStream, front: &Front) -> Result<Guest, String> {
    let most = front.limits.max_connections;
    if front.metrics.connections.load(Relaxed) >= most {
        return Err(format!(
            "all {most} connections (max_connections) are in use, so nothing was stored: close some, or try again later"
        ));
    }
    // Those whom the kernel does not name share one account.
    let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
    front.users.enter(user).ok_or_else(|| {
        format!(
            "user {user} has all {} connections that one user may have (max_connections_per_user), so nothing was stored: close some, or try again later",
            front.users.most_connections()
        )
    })
}

fn turn_away(stream: UnixStream, refusal: &Refusal, front: &Front, tasks: &mut JoinSet<()>) {
    count(refusal, &front.metrics);
    // Those who are told no are no connections: they are bounded by how many may linger.
    parting::say_no(&stream, refusal);
    if let Ok(permit) = front.lingering.clone().try_acquire_owned() {
        tasks.spawn(async move {
            parting::linger(&stream).await;
            drop(permit);
        });
    }
}

fn count(refusal: &Refusal, metrics: &Metrics) {
    metrics.count_refusal(refusal.code);
    tracing::warn!(code = refusal.code.as_str(), "a connection is refused");
}

/// Counts an open connection, however it ends.
struct Open(Arc<Metrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
