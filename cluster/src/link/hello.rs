//! The handshake: what a node says of itself at the beginning of a stream, and whether two nodes fit together.
//!
//! Both sides check, so that both know why they do not talk. Never proves an identity: the transport does, from the
//! certificate. Used by both halves of the link.

use std::net::SocketAddr;
use std::sync::Arc;

use motet_engine::id::Name;
use motet_store::port::Incarnation;

use super::LinkSettings;
use crate::envelope::{NodeId, Sender};
use crate::wire::{Hello, Lane};

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) struct Counterpart {
    pub(crate) sender: Arc<Sender>,
    /// The newest version that both speak.
    pub(crate) protocol: u32,
    /// Where it listens, when it says so.
    pub(crate) address: Option<SocketAddr>,
}

/// What this node says.
pub(crate) fn ours(settings: &LinkSettings, lane: Lane, address: Option<SocketAddr>) -> Hello {
    Hello {
        oldest_protocol: *settings.protocols.start(),
        newest_protocol: *settings.protocols.end(),
        cluster: settings.cluster.to_string(),
        node: settings.node.to_string(),
        incarnation: settings.incarnation.0,
        lane: lane.into(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        window_envelopes: u32::try_from(settings.window.envelopes).unwrap_or(u32::MAX),
        window_bytes: settings.window.bytes as u64,
        session: 0,
    }
}

/// Whether the other side fits to this node, or what is wrong.
pub(crate) fn check(settings: &LinkSettings, hello: &Hello) -> Result<Counterpart, String> {
    let known = Name::new(&hello.node).and_then(|node| Ok((NodeId(node), Name::new(&hello.cluster)?)));
    let (node, cluster) = known.map_err(|error| format!("the hello cannot be read: {error}"))?;
    if cluster != settings.cluster {
        return Err(format!(
            "'{node}' belongs to cluster '{cluster}', '{}' to '{}': check the cluster's name on both",
            settings.node, settings.cluster
        ));
    }
    let (oldest, newest) = (settings.protocols.start(), settings.protocols.end());
    let protocol = hello.newest_protocol.min(*newest);
    if protocol < hello.oldest_protocol.max(*oldest) {
        return Err(format!(
            "'{node}' speaks protocol {} to {}, '{}' {oldest} to {newest}: upgrade one release at a time",
            hello.oldest_protocol, hello.newest_protocol, settings.node
        ));
    }
    if node == settings.node {
        return Err(format!("'{node}' is the name of both nodes: names must differ"));
    }
    let sender = Arc::new(Sender { cluster, node, incarnation: Incarnation(hello.incarnation) });
    Ok(Counterpart { sender, protocol, address: hello.address.parse().ok() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(cluster: &str, node: &str, protocols: (u32, u32)) -> LinkSettings {
        let mut settings = LinkSettings::new(Name::new(cluster).unwrap(), NodeId::new(node).unwrap(), Incarnation(7));
        settings.protocols = protocols.0..=protocols.1;
        settings
    }

    #[test]
    fn nodes_that_do_not_fit_are_told_why() {
        let here = settings("blue", "here", (2, 4));
        for (cluster, node, protocols, expected) in [
            ("blue", "there", (1, 2), Ok(2)),
            ("blue", "there", (3, 9), Ok(4)),
            ("blue", "there", (4, 4), Ok(4)),
            ("blue", "there", (5, 9), Err("protocol 5 to 9")),
            ("blue", "there", (1, 1), Err("protocol 1 to 1")),
            ("red", "there", (1, 2), Err("cluster 'red'")),
            ("blue", "here", (1, 2), Err("names must differ")),
        ] {
            let hello = ours(&settings(cluster, node, protocols), Lane::Control, None);
            let checked = check(&here, &hello).map(|counterpart| counterpart.protocol);
            match (checked, expected) {
                (Ok(spoken), Ok(wanted)) => assert_eq!(spoken, wanted, "{cluster} {node}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
                (found, _) => panic!("{cluster} {node} {protocols:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_hello_without_a_name_is_refused() {
        let hello = Hello { cluster: "blue".to_owned(), node: "Not A Name".to_owned(), ..Hello::default() };
        assert!(check(&settings("blue", "here", (1, 1)), &hello).unwrap_err().contains("cannot be read"));
    }
}
