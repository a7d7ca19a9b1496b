//! A TCP proxy before a server, to be cut, delayed, silenced and torn by a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to what passes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fault {
    /// Connections are dropped, and new ones too.
    cut: bool,
    /// Bytes from the client are taken and kept; connections stay.
    hold_up: bool,
    /// The same for bytes from the server.
    hold_down: bool,
    /// Before each piece is delivered.
    delay: Duration,
    /// How often the servers' ends were torn off: a connection that is older than the last time has no server any more.
    torn: u64,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// A running proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    fault: Arc<watch::Sender<Fault>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Forwards connections to `address` of its own to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        Self::on(TcpListener::bind(("127.0.0.1", 0)).await?, target)
    }

    /// The same on a listener that is there already.
    pub fn on(listener: TcpListener, target: SocketAddr) -> Result<Self> {
        let address = listener.local_addr()?;
        let (fault, state) = watch::channel(Fault::default());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if !state.borrow().cut {
                    tokio::spawn(relay(client, target, state.clone()));
                }
            }
        });
        Ok(Self {
            address,
            fault: Arc::new(fault),
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops all connections, and new ones at once.
    pub fn cut(&self) {
        self.fault.send_modify(|f| f.cut = true);
    }

    /// Connections stay open, and nothing passes any more, neither way. What was on its way arrives after
    /// [`restore`](Self::restore), however late that is.
    pub fn black_hole(&self) {
        self.fault.send_modify(|f| (f.hold_up, f.hold_down) = (true, true));
    }

    /// Nothing passes one way any more: a request arrives and its answer does not, or the other way about.
    pub fn silence(&self, way: Way) {
        self.fault.send_modify(|f| match way {
            Way::Up => f.hold_up = true,
            Way::Down => f.hold_down = true,
        });
    }

    /// Delivers each piece so much later.
    pub fn delay(&self, delay: Duration) {
        self.fault.send_modify(|f| f.delay = delay);
    }

    /// Leaves every connection half-open: its server's end is closed, and its client is not told. New ones are whole.
    pub fn tear(&self) {
        self.fault.send_modify(|f| f.torn += 1);
    }

    /// Ends all faults; what was torn stays so.
    pub fn restore(&self) {
        self.fault.send_modify(|f| {
            *f = Fault {
                torn: f.torn,
                ..Fault::default()
            };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, mut state: watch::Receiver<Fault>) {
    let born = state.borrow().torn;
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    // Without this, small pieces wait for each other.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pass(from_client, to_server, state.clone(), |f| f.hold_up);
        let down = pass(from_server, to_client, state.clone(), |f| f.hold_down);
        let ended = async {
            tokio::join!(up, down);
        };
        tokio::select! {
            () = ended => return,
            ending = state.wait_for(|f| f.cut || f.torn != born) => match ending {
                Ok(fault) if !fault.cut => {}
                _ => return,
            },
        }
    }
    drop(server);
    let mut buffer = vec![0; 16 << 10];
    let unheard = async { while let Ok(1..) = client.read(&mut buffer).await {} };
    tokio::select! {
        () = unheard => {}
        _ = state.wait_for(|f| f.cut) => {}
    }
}

async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<Fault>,
    held: fn(&Fault) -> bool,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let delay = match state.wait_for(|f| !held(f)).await {
            Ok(fault) => fault.delay,
            Err(_) => return,
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
    // The other side learns that this one has nothing more to say.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        address
    }

    async fn ask(socket: &mut TcpStream) -> std::io::Result<u8> {
        socket.write_all(b"x").await?;
        socket.read_u8().await
    }

    async fn silent(socket: &mut TcpStream) -> bool {
        let patience = Duration::from_millis(100);
        tokio::time::timeout(patience, ask(socket)).await.is_err()
    }

    #[tokio::test]
    async fn it_passes_delays_swallows_and_cuts() {
        let proxy = Proxy::start(echo().await).await.expect("a proxy");
        let mut socket = TcpStream::connect(proxy.address()).await.expect("it listens");
        assert_eq!(ask(&mut socket).await.expect("an echo"), b'x');

        proxy.delay(Duration::from_millis(50));
        let before = std::time::Instant::now();
        ask(&mut socket).await.expect("an echo");
        assert!(before.elapsed() >= Duration::from_millis(100), "delayed each way");

        proxy.restore();
        proxy.black_hole();
        assert!(silent(&mut socket).await, "nothing comes back");
        proxy.restore();
        assert_eq!(socket.read_u8().await.expect("the swallowed piece arrives"), b'x');

        proxy.cut();
        assert!(ask(&mut socket).await.is_err());
        let mut again = TcpStream::connect(proxy.address())
            .await
            .expect("the port is still there");
        assert!(ask(&mut again).await.is_err());
    }

    #[tokio::test]
    async fn it_silences_one_way_and_leaves_connections_half_open() {
        let proxy = Proxy::start(echo().await).await.expect("a proxy");
        let mut socket = TcpStream::connect(proxy.address()).await.expect("it listens");
        for way in [Way::Up, Way::Down] {
            proxy.silence(way);
            assert!(silent(&mut socket).await, "{way:?}");
            proxy.restore();
            assert_eq!(socket.read_u8().await.expect("it arrives late"), b'x');
        }

        proxy.tear();
        assert!(silent(&mut socket).await, "open, and nobody is there");
        proxy.restore();
        assert!(silent(&mut socket).await, "for good");
        let mut whole = TcpStream::connect(proxy.address()).await.expect("it listens");
        assert_eq!(ask(&mut whole).await.expect("an echo"), b'x');
    }
}
