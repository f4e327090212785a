//! Which node a call of a model goes to, and which nodes should load it: a rule over what nodes tell of themselves.
//!
//! Pure and without memory: nodes that hear the same decide the same, but for a draw between equals. Asks nobody and
//! loads nothing. Used by the router.
//!
//! Who has the role `models`, the wanted labels and enough memory is ranked for a model by rendezvous hashing; the first
//! `min` are its homes. A call goes to a loaded copy with room, the nearest first; where there is none, to a home, which
//! loads it. When every copy is full, one more node is to load it, as long as there are fewer than `max`.

use std::fmt::Write as _;

use motet_cluster::members::{Member, MemberState, ModelName, Replica, Role};
use motet_cluster::rendezvous::{self, Item};
use motet_engine::definition::ModelPlacement;

/// Nodes that say the same under this label are near to each other.
const ZONE: &str = "zone";

/// Nodes that are named when none will do.
const NAMED: usize = 8;

/// What is known when a call looks for its node.
pub(crate) struct Situation<'a> {
    /// Every node, this one included.
    pub(crate) members: &'a [Member],
    pub(crate) model: &'a ModelName,
    pub(crate) placement: &'a ModelPlacement,
    /// How the model does on this node: newer than what gossip says.
    pub(crate) here: Option<Replica>,
    pub(crate) passed: &'a Passed,
    /// Drawn, `0.0..1.0`: so that callers who know the same do not all go to the same node.
    pub(crate) draw: f64,
}

/// Nodes that a call has asked in vain.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    full: Vec<String>,
    away: Vec<String>,
}

impl Passed {
    /// A node that has the model, but no room.
    pub(crate) fn full(&mut self, node: &str) {
        self.full.push(node.to_owned());
    }

    /// A node that cannot be reached, or does not load the model.
    pub(crate) fn away(&mut self, node: &str) {
        self.away.push(node.to_owned());
    }
}

/// How far a node is from this one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Where {
    Here,
    /// In the same zone.
    Near,
    Far,
}

impl Where {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// The node that a call goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pick<'a> {
    pub(crate) member: &'a Member,
    pub(crate) place: Where,
    /// Whether more nodes should have the model: see [`Situation::wanted`].
    pub(crate) wants_more: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Ready(u32),
    Loading,
    Failed,
    Absent,
}

#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    member: &'a Member,
    standing: Standing,
    place: Where,
    /// It had no room for this call.
    refused: bool,
}

impl Candidate<'_> {
    fn spare(&self) -> u32 {
        match self.standing {
            Standing::Ready(spare) if !self.refused => spare,
            _ => 0,
        }
    }

    fn holds(&self) -> bool {
        matches!(self.standing, Standing::Ready(_) | Standing::Loading)
    }

    fn is_ready(&self) -> bool {
        matches!(self.standing, Standing::Ready(_))
    }
}

impl<'a> Situation<'a> {
    /// The node to ask next; none when there is none that may be asked.
    pub(crate) fn pick(&self) -> Option<Pick<'a>> {
        let all = self.candidates();
        let chosen = self.with_room(&all).or_else(|| self.without_room(&all))?;
        Some(Pick { member: chosen.member, place: chosen.place, wants_more: self.lacking(&all) > 0 })
    }

    /// The nodes that should begin to load the model beside the one that is asked, best first.
    pub(crate) fn wanted(&self, asked: Option<&Member>) -> Vec<&'a Member> {
        let all = self.candidates();
        let is_asked = |it: &Candidate<'_>| asked.is_some_and(|asked| asked.name == it.member.name);
        // Whoever is asked loads it anyway.
        let anyway = usize::from(all.iter().any(|it| is_asked(it) && !it.holds()));
        let need = self.need();
        let fit = |it: &&Candidate<'_>| it.standing == Standing::Absent && !is_asked(it) && self.has_memory(it, need);
        let ranked = self.ranked(&all);
        let wanted = ranked.into_iter().filter(fit).take(self.lacking(&all).saturating_sub(anyway));
        wanted.map(|it| it.member).collect()
    }

    /// The nodes that have the model, loaded or on its way.
    pub(crate) fn holders(&self) -> Vec<&'a Member> {
        self.candidates().into_iter().filter(Candidate::holds).map(|it| it.member).collect()
    }

    /// Why no node will do, in words.
    pub(crate) fn why_none(&self) -> String {
        let labels: Vec<_> = self.placement.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let wanted = if labels.is_empty() { String::new() } else { format!(" and the labels {}", labels.join(", ")) };
        let mut words = format!("no node takes calls of model '{}': it wants the role models{wanted}", self.model.name);
        for (place, member) in self.members.iter().take(NAMED).enumerate() {
            // Writing to a text cannot fail.
            let _ = write!(words, "{} '{}' {}", if place == 0 { ";" } else { "," }, member.name, self.lack(member));
        }
        if let Some(more) = self.members.len().checked_sub(NAMED + 1) {
            let _ = write!(words, ", and {} more", more + 1);
        }
        words
    }

    fn lack(&self, member: &Member) -> String {
        let lacks = |(key, value): &(&String, &String)| member.profile.labels.get(*key) != Some(value);
        if !member.is_self && member.state != MemberState::Alive {
            format!("is {}", member.state)
        } else if !member.flaws.is_empty() {
            "tells nonsense of itself".to_owned()
        } else if member.profile.draining {
            "gives its work away".to_owned()
        } else if !member.profile.roles.has(Role::Models) {
            "has not that role".to_owned()
        } else if let Some((key, value)) = self.placement.labels.iter().find(lacks) {
            format!("is not {key}={value}")
        } else {
            "has too little memory for models".to_owned()
        }
    }

    fn candidates(&self) -> Vec<Candidate<'a>> {
        let own = self.members.iter().find(|member| member.is_self);
        let zone = own.and_then(|member| member.profile.labels.get(ZONE));
        let asked = |nodes: &[String], member: &Member| nodes.contains(&member.name);
        let may = |member: &&Member| self.may_hold(member) && !asked(&self.passed.away, member);
        let candidate = |member: &'a Member| {
            let told = if member.is_self { self.here } else { member.profile.replicas.get(self.model).copied() };
            let refused = asked(&self.passed.full, member);
            let standing = match told {
                Some(Replica { ready: true, spare_queue, .. }) => Standing::Ready(spare_queue),
                // It has no room, so it is there by now.
                _ if refused => Standing::Loading,
                Some(Replica { failed: true, .. }) => Standing::Failed,
                Some(_) => Standing::Loading,
                None => Standing::Absent,
            };
            let near = member.profile.labels.get(ZONE) == zone;
            let place = if member.is_self { Where::Here } else { [Where::Far, Where::Near][usize::from(near)] };
            Candidate { member, standing, place, refused }
        };
        self.members.iter().filter(may).map(candidate).collect()
    }

    fn may_hold(&self, member: &Member) -> bool {
        // Whoever applies this is alive, whatever others hear of it.
        let there = member.is_self || member.state == MemberState::Alive;
        let willing = member.flaws.is_empty() && !member.profile.draining && member.profile.roles.has(Role::Models);
        let labels = &member.profile.labels;
        there && willing && self.placement.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
    }

    /// Memory that the model takes on a node, in bytes, as those say who have it; 0 when nobody has.
    fn need(&self) -> u64 {
        let told = |member: &Member| member.profile.replicas.get(self.model).map(|replica| replica.memory_bytes);
        self.members.iter().filter_map(told).chain(self.here.map(|here| here.memory_bytes)).max().unwrap_or(0)
    }

    fn has_memory(&self, candidate: &Candidate<'_>, need: u64) -> bool {
        let profile = &candidate.member.profile;
        let bound = profile.capacity.model_memory_bytes;
        if bound == 0 || candidate.holds() {
            return true;
        }
        let others = profile.replicas.iter().filter(|(model, _)| *model != self.model);
        let taken = others.fold(0u64, |sum, (_, replica)| sum.saturating_add(replica.memory_bytes));
        taken.saturating_add(need.max(1)) <= bound
    }

    /// Best first.
    fn ranked<'c>(&self, all: &'c [Candidate<'a>]) -> Vec<&'c Candidate<'a>> {
        let item = self.item();
        let mut ranked: Vec<_> = all.iter().map(|it| (cost(it.member, item), it)).collect();
        ranked.sort_by(|(one, a), (other, b)| one.total_cmp(other).then_with(|| a.member.name.cmp(&b.member.name)));
        ranked.into_iter().map(|(_, it)| it).collect()
    }

    fn item(&self) -> Item {
        Item::named(&[self.model.namespace.0.as_str(), self.model.name.as_str()])
    }

    /// How many more nodes should have the model.
    fn lacking(&self, all: &[Candidate<'_>]) -> usize {
        let holders = all.iter().filter(|it| it.holds()).count();
        let ready = all.iter().filter(|it| it.is_ready()).count();
        let full = ready > 0 && all.iter().all(|it| it.spare() == 0);
        let grows = full && ready == holders && holders < self.most();
        (self.placement.min as usize).saturating_sub(holders).max(usize::from(grows))
    }

    fn most(&self) -> usize {
        self.placement.max.map_or(usize::MAX, |max| max as usize)
    }

    /// Of the nearest copies with room one, the more likely the more room it has.
    fn with_room(&self, all: &[Candidate<'a>]) -> Option<Candidate<'a>> {
        let roomy = || all.iter().filter(|it| it.spare() > 0);
        let nearest = roomy().map(|it| it.place).min()?;
        let mut equal: Vec<_> = roomy().filter(|it| it.place == nearest).collect();
        if equal.len() > 1 {
            let item = self.item();
            let key = |it: &&Candidate<'_>| (std::cmp::Reverse(it.spare()), cost(it.member, item).to_bits());
            // Costs are positive, so their bits are in their order.
            equal.sort_by_key(key);
        }
        let room: f64 = equal.iter().map(|it| f64::from(it.spare())).sum();
        let mut left = self.draw * room;
        let drawn = equal.iter().find(|it| {
            left -= f64::from(it.spare());
            left < 0.0
        });
        drawn.or(equal.last()).map(|it| **it)
    }

    /// Where no copy has room: a full one, else a home, else whoever loads it, else the next in rank, which loads it.
    fn without_room(&self, all: &[Candidate<'a>]) -> Option<Candidate<'a>> {
        let ranked = self.ranked(all);
        let need = self.need();
        let may_begin = all.iter().filter(|it| it.holds()).count() < self.most();
        // Beyond the homes one node after the other: what was begun may suffice.
        let loads = all.iter().any(|it| it.standing == Standing::Loading);
        let fits = |it: &&&Candidate<'_>| it.standing != Standing::Failed && self.has_memory(it, need);
        let homes: Vec<_> =
            ranked.iter().filter(fits).take(self.placement.min as usize).map(|it| &it.member.name).collect();
        let class = |it: &Candidate<'_>| {
            let (home, here) = (homes.contains(&&it.member.name), it.place == Where::Here);
            Some(match it.standing {
                _ if it.refused => return None,
                // A run's call waits there for its turn, which comes sooner than a load ends.
                Standing::Ready(_) => it.place as u8,
                Standing::Absent | Standing::Failed if !may_begin => return None,
                _ if home => [4, 3][usize::from(here)],
                Standing::Loading => 5,
                Standing::Absent if !loads && self.has_memory(it, need) => 6,
                Standing::Failed if !loads => 7,
                Standing::Absent | Standing::Failed => return None,
            })
        };
        let classed = ranked.into_iter().filter_map(|it| Some((class(it)?, it)));
        classed.min_by_key(|(class, _)| *class).map(|(_, it)| *it)
    }
}

/// Weights are told as fractions; a thousandth is the least that counts.
fn cost(member: &Member, item: Item) -> f64 {
    let thousandths = (member.profile.capacity.weight * 1_000.0).round();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "told weights are 0 to 1,000")]
    let weight = thousandths as u32;
    rendezvous::cost(&member.name, weight, item)
}

#[cfg(test)]
mod tests;
