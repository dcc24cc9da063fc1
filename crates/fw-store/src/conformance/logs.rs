//! Checks of output.

use fw_core::plan::ONLY_NODE;
use fw_proto::record::{Body, Offsets, Record, Stream};
use fw_proto::{NodeId, TaskKey};

use super::fixture::{at, chunk, host_id, run_id, task};
use crate::{Error, NewChunk, Store};

fn stdout(bytes: u64) -> Offsets {
    Offsets { stdout: bytes, ..Offsets::default() }
}

pub(super) async fn output_is_kept_in_order_and_once(store: Store) {
    let parts = [chunk(task(1), 0, b"hello "), chunk(task(1), 6, b"wor"), chunk(task(1), 9, b"ld")];
    for part in parts.iter().chain(&parts[..2]).chain(&parts[2..]) {
        store.append_chunk(part.clone()).await.expect("it follows, or is there");
    }
    let durable = store.durable(host_id(0), vec![task(2), task(1)]).await.expect("read");
    assert_eq!(durable, [Offsets::default(), stdout(11)]);

    let all = store.log_chunks(run_id(1), host_id(0), 1, 0, 10).await.expect("read");
    let numbers: Vec<_> =
        all.iter().map(|part| (part.n, part.from.stdout, part.to.stdout)).collect();
    assert_eq!(numbers, [(1, 0, 6), (2, 6, 9), (3, 9, 11)]);
    assert!(all.iter().zip(&parts).all(|(kept, sent)| kept.data == sent.data));
    let second = store.log_chunks(run_id(1), host_id(0), 1, 1, 1).await.expect("read");
    assert_eq!(second, all[1..2]);
}

pub(super) async fn a_chunk_that_leaves_a_hole_is_refused_with_where_to_go_on(store: Store) {
    assert_eq!(store.append_chunk(chunk(task(1), 0, b"abc")).await.expect("first"), stdout(3));
    for wrong in [chunk(task(1), 4, b"e"), chunk(task(1), 2, b"cd"), chunk(task(1), 0, b"abcd")] {
        let refused = store.append_chunk(wrong).await;
        let at_three =
            matches!(refused, Err(Error::OutOfOrder { durable }) if durable == stdout(3));
        assert!(at_three, "{refused:?}");
    }
    let again = store.append_chunk(chunk(task(1), 1, b"b")).await.expect("it is there already");
    assert_eq!(again, stdout(3));
}

pub(super) async fn a_chunk_that_is_not_what_it_says_is_refused(store: Store) {
    let good = chunk(task(1), 0, b"abc");
    let packed = |raw: &[u8]| NewChunk {
        raw_len: u32::try_from(raw.len()).expect("small"),
        data: zstd::bulk::compress(raw, 1).expect("memory suffices"),
        ..good.clone()
    };
    let mut whole = Vec::new();
    Record { stream: Stream::Stdout, at: at(0), body: Body::Bytes(b"abc") }.write(&mut whole);
    let mut endless = Vec::new();
    Record { stream: Stream::Stderr, at: at(0), body: Body::Gap(u64::MAX) }.write(&mut endless);
    let bomb = vec![0; 64 << 20];
    let wrong = [
        NewChunk { to: stdout(4), ..good.clone() },
        NewChunk { from: stdout(u64::MAX), ..good.clone() },
        NewChunk { to: Offsets { stderr: u64::MAX, ..good.to }, ..good.clone() },
        NewChunk { raw_len: good.raw_len - 1, ..good.clone() },
        NewChunk { raw_len: good.raw_len + 1, ..good.clone() },
        NewChunk { raw_len: u32::MAX, ..good.clone() },
        NewChunk { data: b"not zstd".to_vec(), ..good.clone() },
        NewChunk { data: [&good.data[..], &vec![0; 1 << 20]].concat(), ..good.clone() },
        NewChunk { data: zstd::bulk::compress(&bomb, 1).expect("memory suffices"), ..good.clone() },
        NewChunk { key: TaskKey { node: NodeId(ONLY_NODE.0 + 1), ..good.key }, ..good.clone() },
        packed(&whole[..whole.len() - 1]),
        packed(b"no records at all, but more bytes than a header has"),
        packed(&endless),
        packed(&[&endless[..], &endless].concat()),
    ];
    for (n, wrong) in wrong.into_iter().enumerate() {
        let refused = store.append_chunk(wrong).await;
        assert!(matches!(refused, Err(Error::MalformedChunk(_))), "number {n}: {refused:?}");
    }
    assert_eq!(store.log_hosts(run_id(1)).await.expect("read"), []);
    store.append_chunk(good).await.expect("the good one");
}

pub(super) async fn tasks_do_not_share_output(store: Store) {
    let second = TaskKey { attempt: 2, ..task(1) };
    let elsewhere = NewChunk { host: host_id(1), ..chunk(task(1), 0, b"elsewhere") };
    for part in [chunk(task(1), 0, b"one"), chunk(second, 0, b"two"), elsewhere] {
        store.append_chunk(part).await.expect("first of its task");
    }
    let hosts = store.log_hosts(run_id(1)).await.expect("read");
    assert_eq!(
        hosts,
        [(host_id(0), 1, stdout(3)), (host_id(0), 2, stdout(3)), (host_id(1), 1, stdout(9))]
    );
    let durable = store.durable(host_id(1), vec![task(1), second]).await.expect("read");
    assert_eq!(durable, [stdout(9), stdout(0)]);
    assert_eq!(store.log_hosts(run_id(2)).await.expect("read"), []);
}

pub(super) async fn all_output_of_a_run_has_one_order(store: Store) {
    let elsewhere =
        |from, bytes: &[u8]| NewChunk { host: host_id(1), ..chunk(task(1), from, bytes) };
    let parts = [
        chunk(task(1), 0, b"one"),
        elsewhere(0, b"two"),
        chunk(task(2), 0, b"another run's"),
        chunk(task(1), 3, b"three"),
        elsewhere(3, b"four"),
    ];
    for part in &parts {
        store.append_chunk(part.clone()).await.expect("it follows");
    }
    let places = store.log_places(run_id(1), None, 0, 10).await.expect("read");
    let mut kept = Vec::new();
    for place in &places {
        kept.push(store.log_chunk_at(*place).await.expect("read").expect("it is there"));
    }
    let sent: Vec<_> = parts.iter().filter(|part| part.key.run == run_id(1)).collect();
    let told = |host, attempt, data: &Vec<u8>| (host, attempt, data.clone());
    assert_eq!(
        kept.iter().map(|k| told(k.host, k.attempt, &k.chunk.data)).collect::<Vec<_>>(),
        sent.iter().map(|s| told(s.host, s.key.attempt, &s.data)).collect::<Vec<_>>(),
    );
    // From anywhere, in parts, and of one host only.
    let rest = store.log_places(run_id(1), None, places[1], 1).await.expect("read");
    assert_eq!(rest, places[2..3]);
    let only = store.log_places(run_id(1), Some(host_id(1)), 0, 10).await.expect("read");
    assert_eq!(only, [places[1], places[3]]);
    assert_eq!(store.log_chunk_at(u64::from(u32::MAX)).await.expect("read"), None);
    // The chunks themselves, of all hosts and of one, whole and a few bytes at a time.
    for (host, places) in
        [(None, &places), (Some(host_id(1)), &only), (Some(host_id(9)), &Vec::new())]
    {
        let whole = store.log_read(run_id(1), host, 0, usize::MAX).await.expect("read");
        assert_eq!(whole.iter().map(|chunk| chunk.place).collect::<Vec<_>>(), *places);
        let mut after = 0;
        for chunk in whole {
            let read = store.log_read(run_id(1), host, after, 1).await.expect("read");
            assert_eq!(read, std::slice::from_ref(&chunk));
            after = chunk.place;
        }
        assert_eq!(store.log_read(run_id(1), host, after, 1).await.expect("read"), []);
    }
}
