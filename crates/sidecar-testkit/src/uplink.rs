//! The relay through which processes on the fake node reach the API server, and which tests can cut.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The relay of one cluster.
#[derive(Debug)]
pub struct Uplink {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    is_cut: bool,
    /// Another one when all open connections are to be dropped.
    generation: u64,
}

impl Uplink {
    /// Listens on a free port of loopback.
    pub(crate) async fn start(api_server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no port for the way to the API server")?;
        let address = listener.local_addr()?;
        let state: Arc<watch::Sender<State>> = Arc::default();
        let relayed = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = relayed.subscribe();
                // A connection that ends in an error is the process's to report.
                tokio::spawn(relay(client, api_server, state));
            }
        });
        Ok(Self { address, state, task })
    }

    /// Where processes find the API server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Drops all open connections, in the middle of whatever they carry. New ones are made.
    pub fn drop_connections(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Drops all open connections, and new ones at once, until [`Uplink::mend`].
    pub fn cut(&self) {
        self.state.send_modify(|state| *state = State { is_cut: true, generation: state.generation + 1 });
    }

    /// Ends a cut.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.is_cut = false);
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.task.abort();
        self.drop_connections();
    }
}

async fn relay(mut client: TcpStream, to: SocketAddr, mut state: watch::Receiver<State>) -> io::Result<()> {
    let State { is_cut, generation } = *state.borrow();
    if is_cut {
        return Ok(());
    }
    let mut server = TcpStream::connect(to).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    tokio::select! {
        result = tokio::io::copy_bidirectional(&mut client, &mut server) => result.map(|_| ()),
        _ = state.wait_for(|state| state.generation != generation) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Whether something is answered on a connection.
    async fn answers(mut client: TcpStream) -> bool {
        let mut answer = [0; 2];
        client.write_all(b"hi").await.is_ok() && client.read_exact(&mut answer).await.is_ok()
    }

    #[tokio::test]
    async fn connections_are_relayed_dropped_and_cut() {
        let echo = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let uplink = Uplink::start(echo.local_addr().unwrap()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.split();
                    tokio::io::copy(&mut reader, &mut writer).await
                });
            }
        });
        let connect = || TcpStream::connect(uplink.address());
        assert!(answers(connect().await.unwrap()).await);
        let mut open = connect().await.unwrap();
        open.write_all(b"x").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'x');
        uplink.drop_connections();
        assert!(!answers(open).await);
        assert!(answers(connect().await.unwrap()).await);
        uplink.cut();
        assert!(!answers(connect().await.unwrap()).await);
        uplink.mend();
        assert!(answers(connect().await.unwrap()).await);
    }
}
