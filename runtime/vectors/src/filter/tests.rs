//! Filters against tables of metadata, mistakes with their pointers, and random input.

use motet_engine::failure::FailureClass;
use motet_engine::value::Value;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::contract::map;

fn sample() -> Map {
    map(json!({
        "genre": "drama", "year": 2019, "score": 7.5, "seen": true, "tags": ["war", "love"], "whole": 3.0,
        "large": 9_007_199_254_740_993_i64, "dotted.name": "x", "negative_zero": -0.0
    }))
}

#[track_caller]
fn check(filter: serde_json::Value, expected: bool) {
    let parsed = Filter::parse(&filter.clone().into()).unwrap();
    assert_eq!(parsed.matches(&sample()), expected, "{filter}");
}

#[test]
fn operators_by_table() {
    for (operator, field, yes, no) in [
        ("$eq", "genre", json!("drama"), json!("comedy")),
        ("$eq", "year", json!(2019.0), json!(2019.5)),
        ("$eq", "whole", json!(3), json!("3")),
        ("$eq", "seen", json!(true), json!(false)),
        ("$eq", "tags", json!("war"), json!("wa")),
        ("$eq", "negative_zero", json!(0), json!(1)),
        ("$eq", "large", json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992_i64)),
        ("$ne", "genre", json!("comedy"), json!("drama")),
        ("$ne", "tags", json!("peace"), json!("love")),
        ("$ne", "year", json!("2019"), json!(2019)),
        ("$gt", "year", json!(2018.9), json!(2019)),
        ("$gte", "year", json!(2019), json!(2019.1)),
        ("$lt", "score", json!(8), json!(7.5)),
        ("$lte", "score", json!(7.5), json!(7)),
        ("$lt", "large", json!(9.3e15), json!(9.0e15)),
        ("$lt", "large", json!(9_223_372_036_854_775_808.0), json!(-9_223_372_036_854_775_808.0)),
        ("$in", "genre", json!(["comedy", "drama"]), json!(["comedy", 2019])),
        ("$in", "tags", json!(["love"]), json!(["peace"])),
        ("$in", "year", json!([1, 2019.0]), json!(["2019"])),
        ("$in", "seen", json!([true]), json!([false])),
        ("$nin", "genre", json!(["comedy"]), json!(["drama"])),
        ("$nin", "genre", json!([]), json!(["drama", "x"])),
        ("$exists", "genre", json!(true), json!(false)),
        ("$exists", "missing", json!(false), json!(true)),
    ] {
        check(json!({field: {operator: yes}}), true);
        check(json!({field: {operator: no}}), false);
    }
}

#[test]
fn missing_fields_and_other_kinds() {
    for (filter, expected) in [
        (json!({"missing": "x"}), false),
        (json!({"missing": {"$ne": "x"}}), true),
        (json!({"missing": {"$nin": ["x"]}}), true),
        (json!({"missing": {"$gt": 0}}), false),
        (json!({"missing": {"$in": ["x"]}}), false),
        (json!({"genre": {"$gt": 0}}), false),
        (json!({"genre": {"$lt": 0}}), false),
        (json!({"tags": {"$gt": 0}}), false),
        (json!({"seen": 1}), false),
        (json!({"dotted.name": "x"}), true),
    ] {
        check(filter, expected);
    }
}

#[test]
fn conditions_combine() {
    for (filter, expected) in [
        (json!({}), true),
        (json!({"genre": "drama", "year": 2019}), true),
        (json!({"genre": "drama", "year": 2020}), false),
        (json!({"year": {"$gt": 2000, "$lt": 2010}}), false),
        (json!({"$and": [{"genre": "drama"}, {"year": {"$gt": 2000}}]}), true),
        (json!({"$or": [{"genre": "comedy"}, {"year": {"$gt": 2000}}]}), true),
        (json!({"$or": [{"genre": "comedy"}, {"year": {"$lt": 2000}}]}), false),
        (json!({"$or": [{"genre": "comedy"}, {}]}), true),
        (json!({"seen": true, "$or": [{"$and": [{"genre": "drama"}, {"score": 7.5}]}, {"year": 1}]}), true),
        (json!({"seen": false, "$or": [{"genre": "drama"}]}), false),
    ] {
        check(filter, expected);
    }
    let empty = Filter::parse(&json!({}).into()).unwrap();
    assert!(empty.is_empty());
    let one = json!({"a": 1});
    let parsed = Filter::parse(&one.clone().into()).unwrap();
    assert!(!parsed.is_empty());
    assert_eq!(parsed.source().to_json(), one);
}

#[test]
fn mistakes_are_pointed_at() {
    let deep = (0..=MAX_DEPTH).fold(json!({"a": 1}), |below, _| json!({"$and": [below]}));
    let many: Vec<_> = (0..=MAX_CONDITIONS).map(|_| json!({"a": 1})).collect();
    for (filter, words) in [
        (json!([]), "at its top: expected a map of conditions, found a list"),
        (json!("genre"), "found a string"),
        (json!({"$eq": 1}), "at /$eq: '$eq' must stand below a field name"),
        (json!({"$not": []}), "at /$not: unknown operator '$not'"),
        (json!({"a": {"$regex": "x"}}), "at /a/$regex: unknown operator '$regex'; known are $eq"),
        (json!({"a": {"$match_phrase": "x"}}), "unknown operator"),
        (json!({"a": {"b": 1}}), "at /a/b: metadata has no nested fields"),
        (json!({"a": {}}), "at /a: the map is empty"),
        (json!({"a": null}), "found null"),
        (json!({"a": [1]}), "at /a: a field equals a string, a number, true or false, found a list"),
        (json!({"a": {"$gt": "x"}}), "at /a/$gt: expected a number, found a string"),
        (json!({"a": {"$in": "x"}}), "at /a/$in: expected a list, found a string"),
        (json!({"a": {"$in": ["x", null]}}), "at /a/$in/1: the list takes"),
        (json!({"a": {"$exists": 1}}), "at /a/$exists: $exists takes true or false"),
        (json!({"a": {"$or": []}}), "at /a/$or: '$or' combines whole conditions"),
        (json!({"$or": []}), "at /$or: the list is empty"),
        (json!({"$and": {"a": 1}}), "at /$and: expected a list of conditions, found a map"),
        (json!({"$and": [{"x/y~z": {"$gt": true}}]}), "at /$and/0/x~1y~0z/$gt"),
        (deep, "nested deeper than 16"),
        (json!({"$or": many}), "more than 1000 conditions"),
        (json!({"a": {"$in": vec![1; MAX_LISTED + 1]}}), "more than 10000 values"),
        (json!({"a": "x".repeat(MAX_TEXT_BYTES)}), "bytes of text"),
    ] {
        let failure = Filter::parse(&filter.into()).unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid);
        assert!(failure.message.contains(words), "'{}' does not say '{words}'", failure.message);
    }
}

/// Anything at all, with the words of the language sprinkled in.
fn anything() -> impl Strategy<Value = serde_json::Value> {
    let key = prop_oneof![
        proptest::sample::select(vec![
            "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$and", "$or", "$x", "genre", "year"
        ])
        .prop_map(str::to_owned),
        ".{0,3}",
    ];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,4}".prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
            proptest::collection::hash_map(key.clone(), inner, 0..5)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn random_json_never_panics(filter in anything(), metadata in anything()) {
        let metadata = match Value::from(metadata) {
            Value::Map(map) => (*map).clone(),
            _ => sample(),
        };
        if let Ok(filter) = Filter::parse(&filter.into()) {
            let _ = filter.matches(&metadata);
        }
    }

    #[test]
    fn each_operator_is_the_opposite_of_its_other(field in -3i64..3, operand in -3i64..3) {
        let holds = |operator: &str, operand: serde_json::Value| {
            Filter::parse(&json!({"n": {operator: operand}}).into()).unwrap().matches(&map(json!({"n": field})))
        };
        prop_assert_eq!(holds("$eq", json!(operand)), field == operand);
        prop_assert_ne!(holds("$eq", json!(operand)), holds("$ne", json!(operand)));
        prop_assert_ne!(holds("$gt", json!(operand)), holds("$lte", json!(operand)));
        prop_assert_ne!(holds("$lt", json!(operand)), holds("$gte", json!(operand)));
        prop_assert_ne!(holds("$in", json!([operand, 0])), holds("$nin", json!([operand, 0])));
    }
}
