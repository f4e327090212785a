//! Nodes with one store and one network, all in this process, with leases that are renewed as nodes do it.

use std::sync::Mutex as StdMutex;

use motet_store::memory::MemoryStore;

use super::super::local::LocalNetwork;
use super::*;

/// Longest wait for something that must come to pass.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);

/// How long a node's lease lasts here, and how often it is renewed.
const LEASE: Duration = Duration::from_millis(1_200);
const RENEWAL: Duration = Duration::from_millis(150);

/// Lets time pass in which something must not happen. Never a way to wait for something.
pub(super) async fn let_pass(time: Duration) {
    let _ = timeout(time, std::future::pending::<()>()).await;
}

/// Waits until the members are as they should be.
pub(super) async fn seen(members: &Members, what: &str, mut right: impl FnMut(&[Member]) -> bool) -> Arc<Vec<Member>> {
    let mut view = members.watch();
    let found = timeout(PATIENCE, view.wait_for(|members| right(members))).await;
    let Ok(found) = found else { panic!("waited in vain for {what}: {:?}", states(&members.list())) };
    found.unwrap().clone()
}

/// What the node of a name tells; different for every name.
pub(super) fn profile(name: &str) -> Profile {
    let number = name.bytes().map(u32::from).sum::<u32>();
    Profile {
        roles: if number.is_multiple_of(2) { Roles::all() } else { [Role::Runs, Role::Api].into_iter().collect() },
        labels: BTreeMap::from([("zone".to_owned(), format!("zone of {name}"))]),
        capacity: Capacity {
            cores: number,
            memory_bytes: u64::from(number) << 30,
            weight: 1.5,
            model_memory_bytes: u64::from(number) << 29,
        },
        load: Load { live_runs: u64::from(number), queue_depth: 2 },
        version: Version { binary: "1.2.3".to_owned(), protocol: (1, 2), events: 40 },
        http: Some(format!("{name}.internal:8080")),
        draining: false,
        replicas: BTreeMap::new(),
    }
}

pub(super) struct Node {
    pub(super) identity: Identity,
    pub(super) members: Members,
    renewing: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// The states of one node as another one saw them.
pub(super) struct History {
    states: Arc<StdMutex<Vec<MemberState>>>,
    watching: JoinHandle<()>,
}

impl History {
    /// Waits until they are as they should be.
    pub(super) async fn until(self, right: impl Fn(&[MemberState]) -> bool) -> Vec<MemberState> {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        let reached = async {
            while !right(&self.states.lock().unwrap()) {
                looks.tick().await;
            }
        };
        assert!(timeout(PATIENCE, reached).await.is_ok(), "{:?}", self.states.lock().unwrap());
        self.take()
    }

    pub(super) fn take(self) -> Vec<MemberState> {
        self.watching.abort();
        self.states.lock().unwrap().clone()
    }
}

impl Node {
    /// Writes down how this node sees another one, from now on.
    pub(super) fn history(&self, name: &str) -> History {
        let (mut view, name) = (self.members.watch(), name.to_owned());
        let states = Arc::new(StdMutex::new(vec![]));
        let written = Arc::clone(&states);
        let look = move |members: &[Member]| {
            let state = members.iter().find(|member| member.name == name).map(|member| member.state);
            let mut written = written.lock().unwrap();
            if let Some(state) = state.filter(|state| written.last() != Some(state)) {
                written.push(state);
            }
        };
        look(&view.borrow_and_update());
        let watching = tokio::spawn(async move {
            while view.changed().await.is_ok() {
                look(&view.borrow_and_update());
            }
        });
        History { states, watching }
    }
}

pub(super) struct Cluster {
    pub(super) network: LocalNetwork,
    pub(super) store: Arc<MemoryStore>,
    pub(super) settings: MemberSettings,
    pub(super) nodes: Vec<Node>,
    /// Whether nodes tell the store where they are.
    pub(super) tells_store_addresses: bool,
    port: u16,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let quick = MemberSettings {
            gossip_interval: Duration::from_millis(50),
            first_interval: Duration::from_millis(50),
            lease_interval: Duration::from_millis(50),
            seed_interval: Duration::from_millis(200),
            ..MemberSettings::default()
        };
        Self {
            network: LocalNetwork::new(7),
            store: Arc::new(MemoryStore::new()),
            settings: quick,
            nodes: vec![],
            tells_store_addresses: true,
            port: 7_000,
        }
    }

    /// So many nodes, n0 and so on, that have heard of each other.
    pub(super) async fn converged(nodes: usize) -> Self {
        let mut cluster = Self::new();
        for number in 0..nodes {
            let name = format!("n{number}");
            cluster.join(&name, profile(&name)).await;
        }
        for node in &cluster.nodes {
            seen(&node.members, "all to see all", |it| all_alive(it, nodes) && told_all(it)).await;
        }
        cluster
    }

    /// Registers a node and lets it join.
    pub(super) async fn join(&mut self, name: &str, profile: Profile) {
        self.port += 1;
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let told = if self.tells_store_addresses { address.to_string() } else { String::new() };
        let incarnation = self.store.register(name, &told, LEASE).await.unwrap();
        let store = Arc::clone(&self.store);
        let renewing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(RENEWAL);
            loop {
                ticks.tick().await;
                let _ = store.renew(incarnation, LEASE).await;
            }
        });
        let identity = Identity { name: name.to_owned(), incarnation, address };
        let datagrams = Arc::new(self.network.open(address));
        let store = Arc::clone(&self.store) as Arc<dyn LeaseStore>;
        let members = Members::join(self.settings.clone(), identity.clone(), profile, datagrams, store).await.unwrap();
        self.nodes.push(Node { identity, members, renewing });
    }

    /// As [`Cluster::join`], at ports from `first` on.
    pub(super) async fn join_at(&mut self, name: &str, first: u16) {
        self.port = self.port.max(first - 1);
        self.join(name, profile(name)).await;
    }

    /// A node dies without a word: it neither gossips nor renews.
    pub(super) fn kill(&mut self, name: &str) {
        let place = self.nodes.iter().position(|node| node.identity.name == name).unwrap();
        let node = self.nodes.remove(place);
        self.network.close(node.identity.address);
    }
}
