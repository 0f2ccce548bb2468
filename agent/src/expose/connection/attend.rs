//! Takes connections, each to a place of its own.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    counts::Cut,
    slot::{Places, Slot},
};

/// How often it is looked for somebody who gives way while nobody does.
const LOOK: Duration = Duration::from_millis(5);
/// Who came so little ago gives way to nobody: the request may be there and not be read yet, and when many come at once it
/// would be the agent that keeps them waiting.
const GRACE: Duration = Duration::from_millis(20);
/// How long the system is left alone when it has no descriptor or memory for a connection.
const PAUSE: Duration = Duration::from_millis(500);
/// How often such an error is told at most.
const TELL: Duration = Duration::from_secs(60);

/// What connections come in at.
pub(in crate::expose) trait Door: Send {
    /// A connection.
    type Stream: Send;
    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Door for TcpListener {
    type Stream = TcpStream;
    async fn next(&self) -> io::Result<TcpStream> {
        let stream = self.accept().await?.0;
        // An answer is written at once; nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

impl Door for UnixListener {
    type Stream = UnixStream;
    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Takes connections for ever and has each served in a task of its own.
pub(in crate::expose) async fn attend<D: Door, F>(
    door: D,
    places: Places,
    serve: impl Fn(D::Stream, Arc<Slot>) -> F + Send,
) where
    F: Future<Output = ()> + Send + 'static,
{
    attend_with(GRACE, door, places, serve).await;
}

async fn attend_with<D: Door, F>(
    grace: Duration,
    door: D,
    places: Places,
    serve: impl Fn(D::Stream, Arc<Slot>) -> F + Send,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let room = places.counts.room(places.listener);
    let mut taken = Taken { slots: Vec::new(), places, grace };
    let mut told: Option<Instant> = None;
    loop {
        let stream = match door.next().await {
            Ok(stream) => stream,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) => {
                // Trying again at once would only burn a CPU. One that gives way leaves a descriptor.
                if told.is_none_or(|told| told.elapsed() >= TELL) {
                    told = Some(Instant::now());
                    tracing::error!(%error, "connections cannot be taken");
                }
                taken.cut_one();
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(permit) = taken.place(&room).await else { return };
        let slot = Slot::new(&taken.places, permit);
        let leaves = Leaves(Arc::clone(&slot));
        let served = serve(stream, Arc::clone(&slot));
        let task = tokio::spawn(async move {
            served.await;
            drop(leaves);
        });
        taken.slots.push((slot, task.abort_handle()));
    }
}

/// Such an error is about one connection that is gone already.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Gives the place back however the connection's task ends.
struct Leaves(Arc<Slot>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Who has a place.
struct Taken {
    slots: Vec<(Arc<Slot>, AbortHandle)>,
    places: Places,
    grace: Duration,
}

impl Taken {
    /// A place for one more, of somebody who gives way if need be. Nobody does only while all are being answered or
    /// have just come; then it is waited for, and newcomers with it, where the system lets them wait. `None` never comes.
    async fn place(&mut self, room: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        if self.slots.len() >= 64 && self.slots.len() >= 2 * self.held() {
            self.forget_gone();
        }
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return Some(permit);
        }
        loop {
            self.cut_one();
            match timeout(LOOK, Arc::clone(room).acquire_owned()).await {
                Ok(permit) => return permit.ok(),
                Err(_) => continue,
            }
        }
    }

    fn held(&self) -> usize {
        self.slots.iter().filter(|(slot, _)| slot.holds_place()).count()
    }

    fn forget_gone(&mut self) {
        self.slots.retain(|(slot, _)| slot.holds_place());
    }

    /// Ends the connection that has kept the agent waiting longest, if one does.
    fn cut_one(&mut self) {
        self.forget_gone();
        let waiting =
            self.slots.iter().enumerate().filter_map(|(at, (slot, _))| Some((slot.gives_way(self.grace)?, at)));
        let Some((_, at)) = waiting.min() else { return };
        let (_, task) = self.slots.swap_remove(at);
        self.places.counts.cut(self.places.listener, Cut::Crowded);
        task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net,
    };

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::expose::connection::{Counts, Listener};

    const PLACES: usize = 4;

    /// Clients that are answered what they sent, of some that connect.
    async fn answered(grace: Duration, clients: Vec<net::TcpStream>, door: TcpListener) -> usize {
        let places = Places::of(Counts::new([PLACES, 1]), Listener::Tcp);
        let serve = |mut stream: TcpStream, slot: Arc<Slot>| async move {
            let mut byte = [0];
            if stream.read_exact(&mut byte).await.is_ok() {
                slot.working();
                let _ = stream.write_all(&byte).await;
            }
        };
        let attending = tokio::spawn(attend_with(grace, door, places, serve));
        let read = |mut client: net::TcpStream| {
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            client.read_exact(&mut [0]).is_ok()
        };
        let all = clients.into_iter().map(|client| tokio::task::spawn_blocking(move || read(client)));
        let mut answered = 0;
        for one in all.collect::<Vec<_>>() {
            answered += usize::from(one.await.unwrap());
        }
        attending.abort();
        answered
    }

    fn connect(door: &TcpListener) -> net::TcpStream {
        net::TcpStream::connect(door.local_addr().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn many_that_come_at_once_with_their_requests_are_all_answered() {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let clients: Vec<_> = (0..10 * PLACES).map(|_| connect(&door)).collect();
        clients.iter().for_each(|mut client| client.write_all(b"a").unwrap());
        assert_eq!(answered(Duration::from_secs(60), clients, door).await, 10 * PLACES);
    }

    #[tokio::test]
    async fn who_asks_for_nothing_gives_way_to_who_asks() {
        let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent: Vec<_> = (0..3 * PLACES).map(|_| connect(&door)).collect();
        let mut client = connect(&door);
        client.write_all(b"a").unwrap();
        assert_eq!(answered(GRACE, vec![client], door).await, 1);
        drop(silent);
    }
}
