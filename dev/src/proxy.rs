//! A TCP proxy before a server, to be cut, delayed and turned into a black hole by a call.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What happens to what passes through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fault {
    /// Connections are dropped, and new ones too.
    cut: bool,
    /// Bytes are taken and never delivered; connections stay.
    black_hole: bool,
    /// Before each piece is delivered.
    delay: Duration,
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

    /// Connections stay open, and nothing passes any more.
    pub fn black_hole(&self) {
        self.fault.send_modify(|f| f.black_hole = true);
    }

    /// Delivers each piece so much later.
    pub fn delay(&self, delay: Duration) {
        self.fault.send_modify(|f| f.delay = delay);
    }

    /// Ends all faults.
    pub fn restore(&self) {
        self.fault.send_modify(|f| *f = Fault::default());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(client: TcpStream, target: SocketAddr, mut state: watch::Receiver<Fault>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    // Without this, small pieces wait for each other.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let (up, down) = (
        pass(from_client, to_server, state.clone()),
        pass(from_server, to_client, state.clone()),
    );
    tokio::select! {
        _ = async { tokio::join!(up, down) } => {}
        _ = state.wait_for(|f| f.cut) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<Fault>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let delay = match state.wait_for(|f| !f.black_hole).await {
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
        assert!(
            tokio::time::timeout(Duration::from_millis(100), ask(&mut socket))
                .await
                .is_err(),
            "nothing comes back"
        );
        proxy.restore();
        assert_eq!(socket.read_u8().await.expect("the swallowed piece arrives"), b'x');

        proxy.cut();
        assert!(ask(&mut socket).await.is_err());
        let mut again = TcpStream::connect(proxy.address())
            .await
            .expect("the port is still there");
        assert!(ask(&mut again).await.is_err());
    }
}
