//! The HTTP CONNECT proxy through which the API server reaches services and pods, and which tests can cut.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    sync::watch,
    task::JoinHandle,
};

use crate::ports::LoopbackBlock;

/// What happens to connections that the API server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressMode {
    /// They are made.
    Pass,
    /// They are refused at once, as by a host without the port open.
    Refuse,
    /// They are never answered, as by a host that drops packets.
    Silence,
}

/// The proxy of one cluster.
#[derive(Debug)]
pub struct Egress {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    block: Arc<LoopbackBlock>,
    routes: Mutex<HashMap<SocketAddrV4, SocketAddr>>,
    mode: Mutex<EgressMode>,
    opened: AtomicUsize,
    /// Changes when all open connections are to be dropped.
    generation: watch::Sender<u64>,
}

impl Egress {
    /// Listens on a Unix socket. Over TCP the API server would want TLS, and without it crashes at its start.
    pub(crate) fn start(socket: &Path, block: Arc<LoopbackBlock>) -> Result<Self> {
        let listener =
            UnixListener::bind(socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
        let shared = Arc::new(Shared {
            block,
            routes: Mutex::default(),
            mode: Mutex::new(EgressMode::Pass),
            opened: AtomicUsize::new(0),
            generation: watch::Sender::new(0),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                // A connection that ends in an error is the API server's to report.
                tokio::spawn(async move { shared.serve(client).await });
            }
        });
        Ok(Self { shared, task })
    }

    /// Sends connections for an address, such as a Service's cluster IP and port, to a listener on this machine.
    pub fn route(&self, address: SocketAddrV4, to: SocketAddr) {
        self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner).insert(address, to);
    }

    /// Says what happens to connections from now on; open ones stay.
    pub fn set_mode(&self, mode: EgressMode) {
        *self.shared.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Drops all open connections, in the middle of whatever they carry.
    pub fn drop_connections(&self) {
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// How many connections were opened to a destination since the start.
    pub fn opened_connections(&self) -> usize {
        self.shared.opened.load(Ordering::Relaxed)
    }
}

impl Drop for Egress {
    fn drop(&mut self) {
        self.task.abort();
        self.drop_connections();
    }
}

impl Shared {
    async fn serve(&self, mut client: UnixStream) -> io::Result<()> {
        let mut dropped = self.generation.subscribe();
        let target = read_target(&mut client).await?;
        let mode = *self.mode.lock().unwrap_or_else(PoisonError::into_inner);
        let destination = match mode {
            EgressMode::Refuse => Err("the test refuses connections".to_owned()),
            EgressMode::Silence => {
                let _ = dropped.changed().await;
                return Ok(());
            }
            EgressMode::Pass => self.destination(&target),
        };
        let connected = match destination {
            Ok(address) => TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}")),
            Err(reason) => Err(reason),
        };
        let mut server = match connected {
            Ok(server) => server,
            Err(reason) => {
                let answer = format!(
                    "HTTP/1.1 502 Bad Gateway\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{reason}",
                    reason.len()
                );
                return client.write_all(answer.as_bytes()).await;
            }
        };
        self.opened.fetch_add(1, Ordering::Relaxed);
        server.set_nodelay(true)?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        tokio::select! {
            // Passes half-closes on; a killed process behind the proxy would go unnoticed otherwise.
            result = tokio::io::copy_bidirectional(&mut client, &mut server) => result.map(|_| ()),
            _ = dropped.changed() => Ok(()),
        }
    }

    fn destination(&self, target: &str) -> Result<SocketAddr, String> {
        let address: SocketAddrV4 =
            target.parse().map_err(|_| format!("`{target}` is not an address and a port"))?;
        if let Some(&to) = self.routes.lock().unwrap_or_else(PoisonError::into_inner).get(&address) {
            return Ok(to);
        }
        let host: Option<Ipv4Addr> = self.block.host_address(*address.ip());
        match host {
            Some(host) => Ok(SocketAddr::from((host, address.port()))),
            None => Err(format!("the test bed has no route to {address}")),
        }
    }
}

/// Reads `CONNECT host:port HTTP/1.1` and its headers.
async fn read_target(client: &mut UnixStream) -> io::Result<String> {
    let mut head = Vec::new();
    // One byte at a time: what follows the empty line belongs to the connection.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 8192 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let mut words = head.split(' ');
    match (words.next(), words.next()) {
        (Some("CONNECT"), Some(target)) => Ok(target.to_owned()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Where the proxy of a cluster listens.
pub(crate) fn socket(state_folder: &Path) -> PathBuf {
    state_folder.join("egress.sock")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::ports::pod_address;

    async fn connect(socket: &Path, target: &str) -> (UnixStream, String) {
        let mut client = UnixStream::connect(socket).await.unwrap();
        client.write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        let status = String::from_utf8_lossy(&answer[9..]).into_owned();
        (client, status)
    }

    #[tokio::test]
    async fn pods_are_reached_by_address_and_connections_can_be_cut() {
        let folder = tempfile::tempdir().unwrap();
        let block = Arc::new(LoopbackBlock::take().unwrap());
        let host = block.host_address(pod_address(1)).unwrap();
        let socket = socket(folder.path());
        let egress = Egress::start(&socket, block).unwrap();
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();

        let (mut client, status) = connect(&socket, &format!("10.244.0.1:{port}")).await;
        assert_eq!(status, "200");
        let (mut server, _) = listener.accept().await.unwrap();
        let mut rest = [0; 64];
        let _ = client.read(&mut rest).await.unwrap();
        server.write_all(b"hi").await.unwrap();
        let mut hello = [0; 2];
        client.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hi");

        egress.drop_connections();
        assert_eq!(client.read(&mut rest).await.unwrap(), 0);
        egress.set_mode(EgressMode::Refuse);
        assert_eq!(connect(&socket, &format!("10.244.0.1:{port}")).await.1, "502");
        egress.set_mode(EgressMode::Pass);
        assert_eq!(connect(&socket, "10.96.0.7:443").await.1, "502");
        egress.route("10.96.0.7:443".parse().unwrap(), listener.local_addr().unwrap());
        assert_eq!(connect(&socket, "10.96.0.7:443").await.1, "200");
        assert_eq!(egress.opened_connections(), 2);
    }
}
