//! What is kept of a topic: each change once, up to a bound, and a snapshot for who has missed some.

use super::*;

fn feed(viewers: usize) -> Feed {
    let feed = Feed::new(Timestamp::from_millis(255));
    let mut held = Held::new(0);
    held.viewers = viewers;
    feed.lock().topics.insert(Topic::Hosts, held);
    feed
}

fn rows(rows: &[(&str, Option<&str>)]) -> Rows {
    rows.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect()
}

fn recent(feed: &Feed) -> Vec<String> {
    let all = feed.lock();
    let recent = &all.topics.get(&Topic::Hosts).unwrap().recent;
    recent.iter().map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
}

#[test]
fn a_change_is_told_once() {
    let feed = feed(1);
    feed.publish(Topic::Hosts, rows(&[("a", Some("1")), ("b", Some("2"))]));
    feed.publish(Topic::Hosts, rows(&[("a", Some("1")), ("b", Some("3"))]));
    feed.publish(Topic::Hosts, rows(&[("a", Some("1")), ("b", Some("3"))]));
    feed.publish(Topic::Hosts, rows(&[("a", None), ("c", None)]));
    let event = |n, rows| {
        format!("event: delta\nid: ff.{n}\ndata: {{\"topic\":\"hosts\",\"rows\":{{{rows}}}}}\n\n")
    };
    let expected = [event(1, r#""a":1,"b":2"#), event(2, r#""b":3"#), event(3, r#""a":null"#)];
    assert_eq!(recent(&feed), expected);
}

#[test]
fn what_nobody_follows_is_not_kept() {
    let feed = feed(0);
    feed.publish(Topic::Jobs, rows(&[("a", Some("1"))]));
    assert_eq!(feed.lock().seq, 0);
    assert!(feed.followed().is_empty());
    feed.forget(Instant::now() + std::time::Duration::from_secs(1));
    assert!(feed.lock().topics.is_empty());
}

#[test]
fn what_is_kept_has_a_bound() {
    let feed = feed(1);
    for n in 0..1000 {
        feed.publish(Topic::Hosts, rows(&[("a", Some(&n.to_string()))]));
    }
    assert_eq!(recent(&feed).len(), KEPT);
    assert_eq!(feed.lock().topics.get(&Topic::Hosts).unwrap().since, 1000 - KEPT as u64);
    let long = format!("\"{}\"", "x".repeat(KEPT_BYTES));
    feed.publish(Topic::Hosts, rows(&[("b", Some(&long))]));
    assert_eq!(recent(&feed).len(), 1);
    assert_eq!(feed.lock().topics.get(&Topic::Hosts).unwrap().since, 1000);
}

#[test]
fn a_viewer_goes_on_where_it_stopped_or_begins_anew() {
    let feed = feed(1);
    for n in 1..=3 {
        feed.publish(Topic::Hosts, rows(&[("a", Some(&n.to_string()))]));
    }
    let take = |since: &str| {
        let since = Since::parse(since).unwrap();
        let mut viewer = Viewer::new(&feed, &[Topic::Hosts], &[], Some(&since));
        let (lost, news) = viewer.take();
        (lost.len(), news.len())
    };
    assert_eq!(take("ff.1"), (0, 2));
    assert_eq!(take("ff.3"), (0, 0));
    assert_eq!(take("ff.4"), (1, 0), "a number that was never given");
    assert_eq!(take("fe.1"), (1, 0), "of another life of the server");
    feed.lose();
    assert_eq!(take("ff.3"), (1, 0), "something may have been missed");
    for wrong in ["", "ff", "ff.", "ff.x", "0123456789abcdef0.1"] {
        assert!(Since::parse(wrong).is_err(), "{wrong}");
    }
    assert_eq!(feed.lock().topics.get(&Topic::Hosts).unwrap().viewers, 1, "they have gone");
}

#[test]
fn topics_are_read_as_they_are_written() {
    let id = "0198c0de-0000-7000-8000-000000000001";
    for text in ["hosts", "jobs", "runs", &format!("run:{id}"), &format!("log:{id}")] {
        assert_eq!(text.parse::<Topic>().unwrap().to_string(), *text);
    }
    for wrong in ["", "host", "run", "run:", "run:x", "hosts:1", "log:../x"] {
        let error = wrong.parse::<Topic>().unwrap_err().to_string();
        assert!(error.contains("topics are hosts"), "{error}");
    }
}
