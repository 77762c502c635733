//! Free ports, and a block of loopback addresses for each cluster.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

/// A port of 127.0.0.1 that nobody listens on. Somebody may take it before it is used: callers try again.
pub(crate) fn free_port() -> Result<u16> {
    // The kernel may name the same port twice in a row, and two programs of one cluster must not share it.
    static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..100 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
        let port = listener.local_addr()?.port();
        if HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 that was not used by this process before")
}

/// The port that marks a block as taken.
const MARKER_PORT: u16 = 10250;

/// The addresses 127.C.0.0/16. Pod 10.244.A.N of a cluster without a real node is the host's 127.C.A.N.
#[derive(Debug)]
pub(crate) struct LoopbackBlock {
    octet: u8,
    /// A listening socket is a lock over all users of the machine, and the kernel releases it however we end.
    _marker: TcpListener,
}

impl LoopbackBlock {
    pub(crate) fn take() -> Result<Self> {
        for octet in 10..250 {
            if let Ok(marker) = TcpListener::bind((Ipv4Addr::new(127, octet, 255, 254), MARKER_PORT)) {
                return Ok(Self { octet, _marker: marker });
            }
        }
        bail!(
            "no free block of loopback addresses; pods as processes need Linux, where 127.0.0.0/8 is all local"
        )
    }

    /// Pod addresses are not loopback addresses: the API server refuses those in an EndpointSlice.
    pub(crate) fn host_address(&self, pod: Ipv4Addr) -> Option<Ipv4Addr> {
        match pod.octets() {
            [10, 244, a, b] => Some(Ipv4Addr::new(127, self.octet, a, b)),
            _ => None,
        }
    }
}

/// The `index`-th pod address, 10.244.0.1 first.
pub(crate) fn pod_address(index: u16) -> Ipv4Addr {
    let [a, b] = index.to_be_bytes();
    Ipv4Addr::new(10, 244, a, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_never_overlap() {
        let (first, second) = (LoopbackBlock::take().unwrap(), LoopbackBlock::take().unwrap());
        let pod = pod_address(300);
        assert_eq!(pod, Ipv4Addr::new(10, 244, 1, 44));
        assert_ne!(first.host_address(pod), second.host_address(pod));
        assert_eq!(first.host_address(Ipv4Addr::new(10, 96, 0, 1)), None);
    }
}
