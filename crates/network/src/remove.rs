//! Takes the whole network away, for `monopod reset`.

use std::collections::HashSet;

use tokio::task::spawn_blocking;

use crate::error::RemoveNetworkError;
use crate::netlink::NetlinkSocket;
use crate::network::{CIDR, CIDR_KEY, Network, RING, RING_KEY};

impl Network {
    /// Removes all links, addresses, the interface, the route, the firewall's table and the records. `ip_forward`
    /// stays on, because others may have come to rely on it. All is tried, whatever fails.
    pub async fn remove(&self) -> Result<(), RemoveNetworkError> {
        self.shared.watch.abort();
        let mut errors = Vec::new();
        errors.extend(self.retain(&HashSet::new()).await.err().map(RemoveNetworkError::Detach));
        let (gateway, firewall) = (self.shared.gateway.clone(), self.shared.firewall.clone());
        let removed = spawn_blocking(move || {
            let interface = gateway.interface.clone();
            let gateway = NetlinkSocket::open_route().and_then(|host| gateway.remove(&host));
            let gateway = gateway.map_err(|cause| RemoveNetworkError::Gateway { interface, cause });
            [gateway, firewall.remove().map_err(RemoveNetworkError::Firewall)]
        });
        match removed.await {
            Ok(outcomes) => errors.extend(outcomes.into_iter().filter_map(Result::err)),
            Err(_stopped) => errors.push(RemoveNetworkError::Interrupted),
        }
        for (table, key) in [(RING, RING_KEY), (CIDR, CIDR_KEY)] {
            let forgotten = self.shared.store.delete_record(table, key).await;
            errors.extend(forgotten.err().map(RemoveNetworkError::Record));
        }
        match errors.pop() {
            None => Ok(()),
            Some(error) if errors.is_empty() => Err(error),
            Some(error) => {
                errors.push(error);
                Err(RemoveNetworkError::Several(errors))
            }
        }
    }
}
