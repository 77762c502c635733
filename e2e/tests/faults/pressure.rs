//! More of something than there should be: pods, slow clients, data on the disk.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::Installation;
use e2e::load::Load;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{DEPLOYMENT, record, recovered, settled, short_or_long};

/// Where the chart has the process listen.
const PORT: u16 = 8443;
/// To each replica; together with the API server's more than it lets wait for a first request.
const SLOW_CLIENTS: usize = 700;

/// No limit of the injector's costs a pod, and no call meets the API server's time limit.
pub(crate) async fn a_thousand_pods_at_once(at: &Installation) -> Result<()> {
    for _ in 0..short_or_long(1, 5) {
        let report = record(Load::burst(at, "1,000 pods at the same time", 1000).await?);
        report.expect_nothing_lost()?;
        ensure!(report.injected == report.attempts, "the API server turned some away: {report}");
        recovered(at).await?;
    }
    Ok(())
}

/// Each sends a byte a second, half of them of what could become a TLS handshake, half of what could become a request, and comes
/// back when it is turned away.
pub(crate) async fn hundreds_of_slow_clients(at: &Installation) -> Result<()> {
    let load = Load::start(at).await?;
    let mut clients = JoinSet::new();
    for replica in at.cluster.fake_node()?.running() {
        let address = SocketAddr::from((replica.address, PORT));
        for _ in 0..SLOW_CLIENTS / 2 {
            clients.spawn(greet_slowly(address));
            clients.spawn(ask_slowly(address));
        }
    }
    tokio::time::sleep(Duration::from_secs(short_or_long(15, 120))).await;
    ensure!(clients.len() == 2 * SLOW_CLIENTS);
    clients.abort_all();
    record(load.finish("1,400 clients that send a byte a second").await?).expect_nothing_lost()
}

/// Never ends.
async fn greet_slowly(to: SocketAddr) {
    // The head of a record of 16 KiB, which never becomes whole.
    let head = [0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3];
    loop {
        if let Ok(stream) = TcpStream::connect(to).await {
            drip(stream, head.into_iter().chain(std::iter::repeat(0))).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Never ends.
async fn ask_slowly(to: SocketAddr) {
    let head = b"POST /mutation/pod HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 3000\r\n\r\n";
    loop {
        if let Ok(mut stream) = sidecar_testkit::unverified::connect(to).await
            && stream.write_all(head).await.is_ok()
        {
            // A body that is long in coming.
            drip(stream, std::iter::repeat(b' ')).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Until the other side has had enough.
async fn drip(mut to: impl AsyncWrite + Unpin, bytes: impl Iterator<Item = u8>) {
    for byte in bytes {
        if to.write_u8(byte).await.is_err() || to.flush().await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The injector needs no disk: not for its log, which is lost, and no other file that it could write.
pub(crate) async fn a_disk_that_is_full(at: &Installation) -> Result<()> {
    let node = at.cluster.fake_node()?;
    let load = Load::start(at).await?;
    node.set_disk_full(true);
    let restarted = restart(at).await;
    tokio::time::sleep(Duration::from_secs(short_or_long(3, 60))).await;
    let running = node.running();
    node.set_disk_full(false);
    restarted?;
    restart(at).await?;
    for replica in running {
        ensure!(replica.restarts == 0 && std::fs::metadata(&replica.log).map_or(0, |log| log.len()) == 0);
    }
    record(load.finish("Disk full, nothing can be written anywhere").await?).expect_nothing_lost()
}

async fn restart(at: &Installation) -> Result<()> {
    at.kubectl(&["rollout", "restart", DEPLOYMENT, "-n", "default"]).await?;
    settled(at, 2).await
}
