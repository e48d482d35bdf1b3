//! Compressed bodies, and what only claims to be one.
#![cfg(feature = "zstd")]

use std::io::Write;

use proptest::{collection::vec, prelude::*};
use tinsmith_wire::{Error, zstd};

fn refused(body: &[u8], limit: usize) -> String {
    match zstd::decompress(body, limit) {
        Err(Error::Zstd(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn every_body_comes_back(body in vec(any::<u8>(), 0..10_000)) {
        let small = zstd::compress(&body).unwrap();
        prop_assert_eq!(zstd::decompress(&small, body.len()).unwrap(), body);
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(body in vec(any::<u8>(), 0..200)) {
        // No panic, and no more than the limit.
        let plain = zstd::decompress(&body, 1000).unwrap_or_default();
        prop_assert!(plain.len() <= 1000);
    }
}

#[test]
fn what_is_no_whole_body_is_refused() {
    let small = zstd::compress(&[7; 1000]).unwrap();
    for cut in 1..small.len() {
        refused(&small[..cut], 1000);
    }
    refused(b"{\"detail\": \"no zstd\"}", 1000);
}

#[test]
fn a_small_body_that_holds_much_is_cut_off_at_the_limit() {
    let bomb = zstd::compress(&vec![0; 64 << 20]).unwrap();
    assert!(bomb.len() < 10_000);
    assert_eq!(refused(&bomb, 1000), "it holds more than 1000 bytes");
}

#[test]
fn a_body_that_wants_much_memory_of_its_reader_is_refused() {
    let mut encoder = ::zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(b"body").unwrap();
    let reason = refused(&encoder.finish().unwrap(), 1000);
    assert!(reason.contains("memory"), "{reason}");
}
