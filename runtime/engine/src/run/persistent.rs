//! Lists and maps that are cheap to clone and to change a little: `decide` tries events on a copy of the state.
//!
//! A few elements lie side by side, because most runs have few steps, one item per step and one or two calls owed; a
//! persistent tree, whose nodes are made for many, would copy kilobytes for each of them. Many elements, as in a large
//! `for_each`, lie in such a tree. Used by the run's state alone.

use std::borrow::Borrow;
use std::fmt;
use std::ops::{Index, RangeBounds};
use std::sync::Arc;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Up to so many elements lie side by side.
const FEW: usize = 32;

/// A list of shared elements.
#[derive(Clone)]
pub struct List<T>(ListForm<T>);

#[derive(Clone)]
enum ListForm<T> {
    Few(Vec<Arc<T>>),
    Many(imbl::Vector<Arc<T>>),
}

impl<T> List<T> {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            ListForm::Few(few) => few.len(),
            ListForm::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&T> {
        match &self.0 {
            ListForm::Few(few) => few.get(place).map(|element| &**element),
            ListForm::Many(many) => many.get(place).map(|element| &**element),
        }
    }

    /// The first element.
    #[must_use]
    pub fn front(&self) -> Option<&T> {
        self.get(0)
    }

    /// The elements in order.
    pub fn iter(&self) -> Iter<'_, T> {
        match &self.0 {
            ListForm::Few(few) => Iter::Few(few.iter()),
            ListForm::Many(many) => Iter::Many(many.iter()),
        }
    }

    pub(super) fn push_back(&mut self, element: T) {
        let element = Arc::new(element);
        match &mut self.0 {
            ListForm::Few(few) if few.len() < FEW => few.push(element),
            ListForm::Few(few) => {
                let mut many: imbl::Vector<_> = std::mem::take(few).into();
                many.push_back(element);
                self.0 = ListForm::Many(many);
            }
            ListForm::Many(many) => many.push_back(element),
        }
    }
}

impl<T: Clone> List<T> {
    /// The element at a place, for changing it; other copies of the list keep theirs.
    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        match &mut self.0 {
            ListForm::Few(few) => few.get_mut(place).map(Arc::make_mut),
            ListForm::Many(many) => many.get_mut(place).map(Arc::make_mut),
        }
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut T> {
        self.get_mut(0)
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(ListForm::Few(Vec::new()))
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let elements: Vec<_> = elements.into_iter().map(Arc::new).collect();
        Self(if elements.len() <= FEW { ListForm::Few(elements) } else { ListForm::Many(elements.into()) })
    }
}

impl<T> Index<usize> for List<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        match &self.0 {
            ListForm::Few(few) => &few[place],
            ListForm::Many(many) => &many[place],
        }
    }
}

impl<'l, T> IntoIterator for &'l List<T> {
    type Item = &'l T;
    type IntoIter = Iter<'l, T>;

    fn into_iter(self) -> Iter<'l, T> {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

/// The elements of a list in order.
pub enum Iter<'l, T> {
    /// Of a list that lies side by side.
    Few(std::slice::Iter<'l, Arc<T>>),
    /// Of a list that lies in a tree.
    Many(imbl::vector::Iter<'l, Arc<T>, imbl::shared_ptr::DefaultSharedPtr>),
}

impl<'l, T> Iterator for Iter<'l, T> {
    type Item = &'l T;

    fn next(&mut self) -> Option<&'l T> {
        match self {
            Self::Few(few) => few.next().map(|element| &**element),
            Self::Many(many) => many.next().map(|element| &**element),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(few) => few.size_hint(),
            Self::Many(many) => many.size_hint(),
        }
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").field("left", &self.len()).finish()
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        collect(deserializer, Self::default(), Self::push_back)
    }
}

/// A map in the order of its keys.
#[derive(Clone)]
pub(super) struct Map<K, V>(MapForm<K, V>);

#[derive(Clone)]
enum MapForm<K, V> {
    /// Sorted by key.
    Few(Vec<(K, V)>),
    Many(imbl::OrdMap<K, V>),
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    pub(super) fn len(&self) -> usize {
        match &self.0 {
            MapForm::Few(few) => few.len(),
            MapForm::Many(many) => many.len(),
        }
    }

    pub(super) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.0 {
            MapForm::Few(few) => place(few, key).ok().map(|place| &few[place].1),
            MapForm::Many(many) => many.get(key),
        }
    }

    pub(super) fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        match &mut self.0 {
            MapForm::Few(few) => match place(few, &key) {
                Ok(place) => few[place].1 = value,
                Err(place) if few.len() < FEW => few.insert(place, (key, value)),
                Err(_) => {
                    let mut many: imbl::OrdMap<K, V> = std::mem::take(few).into_iter().collect();
                    many.insert(key, value);
                    self.0 = MapForm::Many(many);
                }
            },
            MapForm::Many(many) => {
                many.insert(key, value);
            }
        }
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match &mut self.0 {
            MapForm::Few(few) => place(few, key).ok().map(|place| few.remove(place).1),
            MapForm::Many(many) => {
                let removed = many.remove(key);
                // Half way down, so that a map at the border does not change its form with every step.
                if many.len() <= FEW / 2 {
                    let few = many.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                    self.0 = MapForm::Few(few);
                }
                removed
            }
        }
    }

    /// The entries in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.range(..)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The entries whose keys lie in a range, in order.
    pub(super) fn range(&self, range: impl RangeBounds<K>) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match &self.0 {
            MapForm::Few(few) => {
                (Some(few.iter().filter(move |(key, _)| range.contains(key)).map(|(key, value)| (key, value))), None)
            }
            MapForm::Many(many) => (None, Some(many.range(range))),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}

fn place<K: Borrow<Q>, V, Q: Ord + ?Sized>(few: &[(K, V)], key: &Q) -> Result<usize, usize> {
    few.binary_search_by(|(there, _)| there.borrow().cmp(key))
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(MapForm::Few(Vec::new()))
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

impl<K: Ord + Clone, V: Clone + PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl<K: Ord + Clone + fmt::Debug, V: Clone + fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Ord + Clone + Serialize, V: Clone + Serialize> Serialize for Map<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries = Vec::with_capacity(self.len());
        entries.extend(self.iter());
        serializer.collect_seq(entries)
    }
}

impl<'de, K: Ord + Clone + Deserialize<'de>, V: Clone + Deserialize<'de>> Deserialize<'de> for Map<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        collect(deserializer, Self::default(), |map, (key, value)| map.insert(key, value))
    }
}

/// Adds the elements of a sequence one by one.
fn collect<'de, D: Deserializer<'de>, T: Deserialize<'de>, C>(
    deserializer: D,
    empty: C,
    add: fn(&mut C, T),
) -> Result<C, D::Error> {
    struct Elements<C, T>(C, fn(&mut C, T));

    impl<'de, C, T: Deserialize<'de>> Visitor<'de> for Elements<C, T> {
        type Value = C;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a sequence")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<C, A::Error> {
            while let Some(element) = sequence.next_element()? {
                (self.1)(&mut self.0, element);
            }
            Ok(self.0)
        }
    }

    deserializer.deserialize_seq(Elements(empty, add))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_list_is_a_vector(elements in prop::collection::vec(any::<u16>(), 0..100), change in any::<prop::sample::Index>()) {
            let mut list = List::default();
            elements.iter().for_each(|element| list.push_back(*element));
            prop_assert_eq!(&list, &elements.iter().copied().collect());
            let before = list.clone();
            let mut expected = elements.clone();
            if !elements.is_empty() {
                let place = change.index(elements.len());
                *list.get_mut(place).unwrap() ^= 1;
                expected[place] ^= 1;
                prop_assert_eq!(list[place], expected[place]);
            }
            prop_assert!(list.iter().eq(expected.iter()));
            prop_assert!(before.iter().eq(elements.iter()));
            prop_assert_eq!(list.len(), list.iter().len());
            let written = serde_json::to_string(&list).unwrap();
            prop_assert_eq!(serde_json::from_str::<List<u16>>(&written).unwrap(), list);
        }

        #[test]
        fn a_map_is_an_ordered_map(changes in prop::collection::vec((0u8..80, any::<Option<u16>>()), 0..300), from in 0u8..80) {
            let (mut map, mut expected) = (Map::default(), BTreeMap::new());
            for (key, value) in changes {
                match value {
                    Some(value) => {
                        map.insert(key, value);
                        expected.insert(key, value);
                    }
                    None => prop_assert_eq!(map.remove(&key), expected.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), expected.get(&key));
                prop_assert_eq!(map.len(), expected.len());
            }
            prop_assert!(map.iter().eq(expected.iter()));
            prop_assert!(map.keys().eq(expected.keys()));
            prop_assert!(map.range(from..).eq(expected.range(from..)));
            let written = serde_json::to_string(&map).unwrap();
            prop_assert_eq!(serde_json::from_str::<Map<u8, u16>>(&written).unwrap(), map);
        }
    }
}
