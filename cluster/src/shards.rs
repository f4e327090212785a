//! Who serves which shard: the plan of the leader, what each node does about it, and what routers see of it.
//!
//! The table in the store is the truth; everything here only tries, and the store's compare-and-swap decides. The rules
//! are pure and are told the time; two small loops carry them out: [`ShardKeeper`] on every node, [`ShardPlanner`] on
//! the one that leads. Never writes anything of a run. Used by the actors, through [`ShardHost`] and [`ShardTable`], and
//! by the server.
//!
//! A shard moves like this: the leader names a target; the owner hands over (drains) and releases it; the target takes
//! it under the next epoch. A shard whose owner died: when the owner's lease has run out, the first live node in the
//! shard's rendezvous order fences the owner and takes its shards; if it does not, the next in line does a little later.

mod contender;
mod host;
mod keeper;
mod lease;
mod machine;
mod members;
mod ownership;
mod planner;
mod planning;
mod settings;
mod table;
mod view;

pub use contender::{Contender, order, successor};
pub use host::ShardHost;
pub use keeper::{KeeperParts, ShardKeeper, Standing};
pub use machine::{Answer, Call, Event, Look, Machine, Order, Own};
pub use members::{Member, Members};
pub use ownership::{Action, Ownership};
pub use planner::{PlanLimits, Situation, plan};
pub use planning::{PlannerParts, Planning, ShardPlanner};
pub use settings::{SettingsError, ShardSettings};
pub use table::{Home, ShardTable};
pub use view::View;
