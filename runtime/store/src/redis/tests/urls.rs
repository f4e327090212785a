//! Which URLs are understood, and what they never show.

use super::super::settings::TlsFiles;
use super::super::url::{Address, Shape};
use super::*;

fn single(host: &str, port: u16) -> Shape {
    Shape::Single((host.to_owned(), port))
}

fn hosts(of: &[(&str, u16)]) -> Vec<(String, u16)> {
    of.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
}

fn sentinel(of: &[(&str, u16)], service: &str, password: Option<&str>) -> Shape {
    Shape::Sentinel {
        hosts: hosts(of),
        service: service.to_owned(),
        username: None,
        password: password.map(str::to_owned),
    }
}

/// URL, shape, user, password, database, TLS.
type Case = (&'static str, Shape, Option<&'static str>, Option<&'static str>, Option<u8>, bool);

#[test]
fn reads_what_users_write() {
    let trio = [("a", 26379), ("b", 26380), ("c", 26379)];
    let cases: Vec<Case> = vec![
        ("redis://localhost", single("localhost", 6379), None, None, None, false),
        ("redis://cache.internal:7000/3", single("cache.internal", 7000), None, None, Some(3), false),
        ("redis://:pw@h/", single("h", 6379), None, Some("pw"), None, false),
        ("redis://pw@h", single("h", 6379), None, Some("pw"), None, false),
        ("redis://user:p%40s%2Fs@h:1?db=2", single("h", 1), Some("user"), Some("p@s/s"), Some(2), false),
        ("redis://user:with@sign@h", single("h", 6379), Some("user"), Some("with@sign"), None, false),
        ("redis://[::1]:7000", single("::1", 7000), None, None, None, false),
        ("redis://[fe80::1]", single("fe80::1", 6379), None, None, None, false),
        ("rediss://u:p@h:6380/0", single("h", 6380), Some("u"), Some("p"), Some(0), true),
        ("valkey://h", single("h", 6379), None, None, None, false),
        ("valkeys://h", single("h", 6379), None, None, None, true),
        (
            "redis-cluster://a:1,b:2,c",
            Shape::Cluster(hosts(&[("a", 1), ("b", 2), ("c", 6379)])),
            None,
            None,
            None,
            false,
        ),
        ("rediss-cluster://:pw@a:1/0", Shape::Cluster(hosts(&[("a", 1)])), None, Some("pw"), Some(0), true),
        ("redis-sentinel://a,b:26380,c/mymaster", sentinel(&trio, "mymaster", None), None, None, None, false),
        (
            "redis+sentinel://pw@a,b:26380,c/mymaster/4",
            sentinel(&trio, "mymaster", None),
            None,
            Some("pw"),
            Some(4),
            false,
        ),
        ("redis-sentinel://a/2#mymaster", sentinel(&[("a", 26379)], "mymaster", None), None, None, Some(2), false),
        (
            "rediss-sentinel://a?sentinelServiceName=m&sentinel_password=s%20s",
            sentinel(&[("a", 26379)], "m", Some("s s")),
            None,
            None,
            None,
            true,
        ),
        ("unix:///run/redis.sock?db=1", Shape::Socket("/run/redis.sock".into()), None, None, Some(1), false),
        ("redis+unix://:pw@/run/r.sock", Shape::Socket("/run/r.sock".into()), None, Some("pw"), None, false),
    ];
    for (text, shape, username, password, database, tls) in cases {
        let (address, prefix) = Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(address.shape == shape, "{text}: {}", address.place());
        let read = (address.username.as_deref(), address.password.as_deref(), address.database);
        assert_eq!(read, (username, password, database), "{text}");
        assert_eq!(address.tls.is_some(), tls, "{text}");
        assert_eq!(prefix, None, "{text}");
    }
    let (address, prefix) =
        Address::parse("rediss://h?ca_file=/a.pem&cert_file=/c.pem&key_file=/k.pem&prefix=blue").unwrap();
    let files = TlsFiles { authority: Some("/a.pem".into()), identity: Some(("/c.pem".into(), "/k.pem".into())) };
    assert_eq!((address.tls, prefix.as_deref()), (Some(files), Some("blue")));
}

#[test]
fn refuses_the_rest_without_repeating_it() {
    for (text, advice) in [
        ("localhost:6379", "redis://"),
        ("http://secret@h", "unknown scheme"),
        ("redis://", "names no host"),
        ("redis://:6379", "names no host"),
        ("redis://h:secret", "%40"),
        ("redis://h:70000", "1 to 65535"),
        ("redis://user:se:cret@h/name", "number of a database"),
        ("redis://h/300", "0 to 255"),
        ("redis://h?db=secret", "db"),
        ("redis://h?passwd=secret", "unknown parameter 'passwd'"),
        ("redis://a,b", "redis-sentinel://"),
        ("redis://[::1", "bracket"),
        ("redis://h?ca_file=/x.pem", "rediss://"),
        ("rediss://h?cert_file=/x.pem", "together"),
        ("redis-cluster://a/3", "database 0"),
        ("redis-sentinel://a", "names no service"),
        ("unix://", "names no socket"),
        ("unix://host/path", "names no socket"),
        ("redis://:secret%4@h", "hexadecimal"),
        ("redis://:secret%ff@h", "no text"),
    ] {
        let refused = RedisSettings::from_url(text).unwrap_err();
        assert!(matches!(refused, VolatileError::Refused(_)), "{text}");
        let said = refused.to_string();
        assert!(said.contains(advice), "{text}: {said}");
        assert!(!said.contains("secret"), "{text}: {said}");
    }
}

#[test]
fn shows_where_but_never_a_password() {
    for (text, place) in [
        ("redis://user:secret@h:1/2", "h:1/2"),
        ("redis-cluster://secret@a,b:2", "cluster a:6379,b:2"),
        ("redis-sentinel://:secret@a/m/1?sentinel_password=secret", "m/1 of sentinels a:26379"),
        ("unix:///run/r.sock?db=1", "/run/r.sock/1"),
    ] {
        let settings = RedisSettings::from_url(text).unwrap();
        assert_eq!(settings.place(), place);
        assert!(!format!("{settings:?}").contains("secret"), "{settings:?}");
    }
}

#[test]
fn certificates_are_read_before_anything_is_connected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nothing.pem");
    std::fs::write(&path, "no certificate").unwrap();
    for (what, file) in [("cannot be read", "/no/such/file.pem"), ("no certificate", path.to_str().unwrap())] {
        let settings = RedisSettings::from_url(&format!("rediss://h?ca_file={file}")).unwrap();
        let Err(refused) = connect::client(&settings).map(drop) else { panic!("{file} was read") };
        assert!(refused.to_string().contains(what), "{refused}");
    }
}
