//! The visitor's address: several cases for each row of the table in docs/address.md, through real sockets.
//!
//! On Linux all of 127.0.0.0/8 is this machine, so a client chooses its address and is a trusted peer or not.

use std::net::{IpAddr, TcpListener};

use conformance::get;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::server::{Bed, Server, Variables};
use crate::trial;

/// The settings of a server, and the requests that it gets.
struct Group {
    name: &'static str,
    listen: &'static str,
    variables: Variables,
    rows: &'static [Row],
}

/// The peer, the headers it sends, and what the service makes of them.
type Row = (&'static str, &'static [(&'static str, &'static str)], Expected);

enum Expected {
    /// The peer, verified. No header is believed, and the explanation names those that were ignored.
    Peer(&'static [&'static str]),
    /// This address, verified, from the header that is configured.
    Header(&'static str),
    /// This address, not verified.
    Doubtful(&'static str),
}
use Expected::{Doubtful, Header, Peer};

/// A trusted peer, and one that is not.
const PROXY: &str = "127.0.0.1";
const STRANGER: &str = "127.0.0.2";

const XFF: &str = "x-forwarded-for";
const FWD: &str = "forwarded";
const CF: &str = "cf-connecting-ip";
const CLOUDFRONT: &str = "cloudfront-viewer-address";
const SPIN: &str = "spin-client-addr";

const GROUPS: &[Group] = &[
    Group {
        name: "nothing configured",
        listen: "127.0.0.1:0",
        variables: &[],
        rows: &[
            (PROXY, &[], Peer(&[])),
            (STRANGER, &[], Peer(&[])),
            ("127.8.9.10", &[], Peer(&[])),
            (PROXY, &[(XFF, "203.0.113.9")], Peer(&[XFF])),
            (STRANGER, &[(XFF, "203.0.113.9, 127.0.0.1")], Peer(&[XFF])),
            (STRANGER, &[(XFF, "nonsense")], Peer(&[XFF])),
            (STRANGER, &[(FWD, "for=203.0.113.9")], Peer(&[FWD])),
            (
                STRANGER,
                &[(CF, "203.0.113.9"), ("x-real-ip", "203.0.113.9"), ("true-client-ip", "203.0.113.9")],
                Peer(&[]),
            ),
            (STRANGER, &[(SPIN, "203.0.113.9:1")], Peer(&[])),
            (STRANGER, &[(SPIN, "203.0.113.9:1"), (SPIN, "198.51.100.7:2")], Peer(&[])),
            (STRANGER, &[(SPIN, "nonsense")], Peer(&[])),
            (STRANGER, &[("Spin-Client-Addr", "[2001:db8::1]:1")], Peer(&[])),
        ],
    },
    Group {
        name: "proxies, x-forwarded-for",
        listen: "127.0.0.1:0",
        variables: &[("trusted_proxies", "127.0.0.1, 10.0.0.0/8,fd00::/8")],
        rows: &[
            // A peer that is not trusted.
            (STRANGER, &[], Peer(&[])),
            (STRANGER, &[(XFF, "203.0.113.9")], Peer(&[XFF])),
            (STRANGER, &[(XFF, "203.0.113.9, 10.0.0.5")], Peer(&[XFF])),
            (STRANGER, &[(XFF, "203.0.113.9, 127.0.0.1"), (SPIN, "127.0.0.1:1")], Peer(&[XFF])),
            // The first address that is not trusted, from the right.
            (PROXY, &[(XFF, "203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "198.51.100.7, 203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "198.51.100.7, 203.0.113.9, 10.0.0.5")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "10.9.9.9, 203.0.113.9, 10.0.0.5, 10.255.255.255")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9, fd00::5")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9, 11.0.0.1")], Header("11.0.0.1")),
            (PROXY, &[(XFF, "203.0.113.9,10.0.0.5")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "\t 203.0.113.9 \t,\t10.0.0.5 ")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9"), (SPIN, "198.51.100.7:1")], Header("203.0.113.9")),
            // Lines are joined in their order.
            (PROXY, &[(XFF, "198.51.100.7"), (XFF, "203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9"), (XFF, "10.0.0.5")], Header("203.0.113.9")),
            (
                PROXY,
                &[(XFF, "198.51.100.7"), (XFF, "203.0.113.9, 10.0.0.5"), ("X-Forwarded-For", "10.0.0.6")],
                Header("203.0.113.9"),
            ),
            // Empty elements are nothing.
            (PROXY, &[(XFF, ",203.0.113.9,, ,10.0.0.5,")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9"), (XFF, ""), (XFF, "10.0.0.5")], Header("203.0.113.9")),
            // Ports and brackets are stripped.
            (PROXY, &[(XFF, "203.0.113.9:4711")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9:1, 10.0.0.5:65535")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "[2001:db8::1]:4711")], Header("2001:db8::1")),
            (PROXY, &[(XFF, "[2001:db8::1], [fd00::5]:80")], Header("2001:db8::1")),
            (PROXY, &[(XFF, "2001:db8::1")], Header("2001:db8::1")),
            (PROXY, &[(XFF, "2001:DB8:0:0:0:0:0:1")], Header("2001:db8::1")),
            // IPv4-mapped becomes IPv4.
            (PROXY, &[(XFF, "::ffff:203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "::ffff:cb00:7109")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "[::ffff:203.0.113.9]:80")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "203.0.113.9, ::ffff:10.0.0.5")], Header("203.0.113.9")),
            // Entries to the left of the answer are not read.
            (PROXY, &[(XFF, "nonsense, 203.0.113.9, 10.0.0.5")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "unknown, 203.0.113.9")], Header("203.0.113.9")),
            // The walk stops.
            (PROXY, &[(XFF, "nonsense")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9, nonsense")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9, nonsense, 10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(XFF, "203.0.113.9, nonsense, 10.0.0.4, 10.0.0.5")], Doubtful("10.0.0.4")),
            (PROXY, &[(XFF, "203.0.113.9, nonsense"), (XFF, "10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(XFF, "unknown")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9, unknown, 10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(XFF, "203.0.113.9, _hidden, 10.0.0.5")], Doubtful("10.0.0.5")),
            // Addresses that are never a visitor's.
            (PROXY, &[(XFF, "0.0.0.0")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9, 0.0.0.0:80, 10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(XFF, "203.0.113.9, ::")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "[::]:80")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "::ffff:0.0.0.0")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "255.255.255.255")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "::ffff:255.255.255.255")], Doubtful(PROXY)),
            // Malformed.
            (PROXY, &[(XFF, "203.0.113.9:http")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9:65536")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9:-1")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9:+80")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9:")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9:80:80")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "[2001:db8::1]:")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "[2001:db8::1]4711")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "[2001:db8::1")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "2001:db8::1]")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "[203.0.113.9]")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "fe80::1%eth0")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "[fe80::1%25eth0]:80")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.09")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.000.113.9")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.113.9")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "3405803785")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "0xcb.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.0/24")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.256")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9 198.51.100.7")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "\"203.0.113.9\"")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "for=203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "\u{665}.0.113.9")], Doubtful(PROXY)),
            // Every entry is trusted.
            (PROXY, &[(XFF, "10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(XFF, "10.0.0.1, fd00::5, 10.0.0.5")], Doubtful("10.0.0.1")),
            (PROXY, &[(XFF, "10.0.0.1"), (XFF, "127.0.0.1")], Doubtful("10.0.0.1")),
            // No header, or nothing in it, or others.
            (PROXY, &[], Doubtful(PROXY)),
            (PROXY, &[(XFF, "")], Doubtful(PROXY)),
            (PROXY, &[(XFF, " , ,")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(CF, "203.0.113.9"), ("x-real-ip", "203.0.113.9"), (SPIN, "203.0.113.9:1")], Doubtful(PROXY)),
        ],
    },
    Group {
        name: "proxies by CIDR",
        listen: "127.0.0.1:0",
        variables: &[("trusted_proxies", "127.0.0.0/8"), ("client_address_header", "X-Forwarded-For")],
        rows: &[
            ("127.0.0.1", &[(XFF, "198.51.100.7"), (XFF, "203.0.113.9")], Header("203.0.113.9")),
            ("127.255.0.3", &[(XFF, "203.0.113.9, 127.0.0.5")], Header("203.0.113.9")),
        ],
    },
    Group {
        name: "all of IPv4 trusted",
        listen: "127.0.0.1:0",
        variables: &[("trusted_proxies", "0.0.0.0/0")],
        rows: &[
            (STRANGER, &[(XFF, "198.51.100.7, 203.0.113.9")], Doubtful("198.51.100.7")),
            (STRANGER, &[(XFF, "198.51.100.7, 2001:db8::1, 203.0.113.9")], Header("2001:db8::1")),
        ],
    },
    Group {
        name: "proxies, forwarded",
        listen: "127.0.0.1:0",
        variables: &[("trusted_proxies", "127.0.0.1,10.0.0.0/8"), ("client_address_header", "Forwarded")],
        rows: &[
            (STRANGER, &[(FWD, "for=203.0.113.9")], Peer(&[FWD])),
            (PROXY, &[(FWD, "for=203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "FOR=203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=\"203.0.113.9\"")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=\"203.0.113.9:4711\"")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=\"[2001:db8::1]\"")], Header("2001:db8::1")),
            (PROXY, &[(FWD, "For=\"[2001:DB8::1]:4711\"")], Header("2001:db8::1")),
            (PROXY, &[(FWD, "for=\"[::ffff:203.0.113.9]\"")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=203.0.113.9;proto=https;by=10.0.0.5;host=a.test")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "proto=https;by=10.0.0.5;for=203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(FWD, ";for=203.0.113.9;")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=198.51.100.7, for=203.0.113.9,for=10.0.0.5")], Header("203.0.113.9")),
            (
                PROXY,
                &[(FWD, "for=198.51.100.7"), (FWD, "for=203.0.113.9;proto=http"), (FWD, "for=10.0.0.5")],
                Header("203.0.113.9"),
            ),
            (PROXY, &[(FWD, ", for=203.0.113.9 ,, for=10.0.0.5,")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=\"203.0.113\\.9\"")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=203.0.113.9;ext=\"a, for=198.51.100.7\", for=10.0.0.5")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=203.0.113.9;ext=\"a\\\", for=198.51.100.7;x=\"")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=nonsense, for=203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(FWD, "for=unknown")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.9, for=Unknown, for=10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(FWD, "for=203.0.113.9, for=_hidden")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.9, for=\"_gazonk:_p\", for=10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(FWD, "for=203.0.113.9, proto=https;by=10.0.0.5, for=10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(FWD, "proto=https")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.9;for=198.51.100.7")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.9, for=198.51.100.7;For=203.0.113.9, for=10.0.0.5")], Doubtful("10.0.0.5")),
            (PROXY, &[(FWD, "for=[2001:db8::1]")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.9:80")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=\"203.0.113.9:99999\"")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=\"203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=203.0.113.09")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=\"[fe80::1%eth0]\"")], Doubtful(PROXY)),
            (PROXY, &[(FWD, "for=10.0.0.1, for=10.0.0.5")], Doubtful("10.0.0.1")),
            (PROXY, &[(FWD, "")], Doubtful(PROXY)),
            (PROXY, &[], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9")], Doubtful(PROXY)),
        ],
    },
    Group {
        name: "one hop",
        listen: "127.0.0.1:0",
        variables: &[("trusted_hops", "1")],
        rows: &[
            (STRANGER, &[(XFF, "203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(XFF, "198.51.100.7, 203.0.113.9")], Header("203.0.113.9")),
            (STRANGER, &[(XFF, "203.0.113.9"), (XFF, "198.51.100.7")], Header("198.51.100.7")),
            (STRANGER, &[(XFF, "198.51.100.7,, 203.0.113.9:80 ,")], Header("203.0.113.9")),
            (STRANGER, &[(XFF, "nonsense, 203.0.113.9")], Header("203.0.113.9")),
            (STRANGER, &[(XFF, "203.0.113.9, nonsense")], Doubtful(STRANGER)),
            (STRANGER, &[(XFF, "unknown")], Doubtful(STRANGER)),
            (STRANGER, &[(XFF, "")], Doubtful(STRANGER)),
            (STRANGER, &[], Doubtful(STRANGER)),
            (STRANGER, &[(FWD, "for=203.0.113.9")], Doubtful(STRANGER)),
            (STRANGER, &[(XFF, "203.0.113.9"), (SPIN, "198.51.100.7:1")], Header("203.0.113.9")),
        ],
    },
    Group {
        name: "two hops",
        listen: "127.0.0.1:0",
        variables: &[("trusted_hops", "2")],
        rows: &[
            (STRANGER, &[(XFF, "203.0.113.9, 10.0.0.5")], Header("203.0.113.9")),
            (STRANGER, &[(XFF, "198.51.100.7, 203.0.113.9, 10.0.0.5")], Header("203.0.113.9")),
            (STRANGER, &[(XFF, "198.51.100.7"), (XFF, "203.0.113.9"), (XFF, "10.0.0.5")], Header("203.0.113.9")),
            (STRANGER, &[(XFF, "203.0.113.9")], Doubtful(STRANGER)),
            (STRANGER, &[(XFF, "203.0.113.9,")], Doubtful(STRANGER)),
            (STRANGER, &[], Doubtful(STRANGER)),
        ],
    },
    Group {
        name: "one hop, forwarded",
        listen: "127.0.0.1:0",
        variables: &[("trusted_hops", "1"), ("client_address_header", "forwarded")],
        rows: &[
            (STRANGER, &[(FWD, "for=198.51.100.7, for=\"[2001:db8::1]:80\"")], Header("2001:db8::1")),
            (STRANGER, &[(FWD, "for=203.0.113.9, for=_hidden")], Doubtful(STRANGER)),
            (STRANGER, &[(XFF, "203.0.113.9")], Doubtful(STRANGER)),
        ],
    },
    Group {
        name: "a single-address header",
        listen: "127.0.0.1:0",
        variables: &[("trusted_proxies", "127.0.0.1"), ("client_address_header", "CF-Connecting-IP")],
        rows: &[
            (STRANGER, &[(CF, "203.0.113.9")], Peer(&[CF])),
            (PROXY, &[(CF, "203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(CF, " 2001:DB8::1 ")], Header("2001:db8::1")),
            (PROXY, &[(CF, "::ffff:203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[(CF, "203.0.113.9"), (XFF, "198.51.100.7"), (FWD, "for=198.51.100.7")], Header("203.0.113.9")),
            (PROXY, &[(CF, "203.0.113.9"), (CF, "203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(CF, "198.51.100.7, 203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(CF, "203.0.113.9,")], Doubtful(PROXY)),
            (PROXY, &[(CF, "nonsense")], Doubtful(PROXY)),
            (PROXY, &[(CF, "unknown")], Doubtful(PROXY)),
            (PROXY, &[(CF, "")], Doubtful(PROXY)),
            (PROXY, &[(CF, "203.0.113.0/24")], Doubtful(PROXY)),
            (PROXY, &[(XFF, "203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[], Doubtful(PROXY)),
        ],
    },
    Group {
        name: "cloudfront-viewer-address",
        listen: "127.0.0.1:0",
        variables: &[("trusted_proxies", "127.0.0.1"), ("client_address_header", "CloudFront-Viewer-Address")],
        rows: &[
            (PROXY, &[(CLOUDFRONT, "203.0.113.9:46532")], Header("203.0.113.9")),
            (PROXY, &[(CLOUDFRONT, "2001:db8::7:8080")], Header("2001:db8::7")),
            (PROXY, &[(CLOUDFRONT, "2001:db8:0:0:0:0:0:7:443")], Header("2001:db8::7")),
            (PROXY, &[(CLOUDFRONT, "::ffff:203.0.113.9:80")], Header("203.0.113.9")),
            (PROXY, &[(CLOUDFRONT, "203.0.113.9")], Doubtful(PROXY)),
            (PROXY, &[(CLOUDFRONT, "2001:db8::443")], Doubtful(PROXY)),
            (PROXY, &[(CLOUDFRONT, "2001:db8::7:65536")], Doubtful(PROXY)),
            (PROXY, &[(CLOUDFRONT, "203.0.113.9:1, 198.51.100.7:2")], Doubtful(PROXY)),
            (PROXY, &[(CLOUDFRONT, "0.0.0.0:80")], Doubtful(PROXY)),
            (STRANGER, &[(CLOUDFRONT, "203.0.113.9:1")], Peer(&[CLOUDFRONT])),
        ],
    },
    Group {
        name: "a header and no trusted proxies",
        listen: "127.0.0.1:0",
        variables: &[("client_address_header", "cf-connecting-ip")],
        rows: &[(PROXY, &[(CF, "203.0.113.9")], Peer(&[CF])), (STRANGER, &[], Peer(&[]))],
    },
    Group {
        name: "IPv6, nothing configured",
        listen: "[::1]:0",
        variables: &[],
        rows: &[("::1", &[], Peer(&[])), ("::1", &[(XFF, "203.0.113.9"), (SPIN, "[2001:db8::1]:1")], Peer(&[XFF]))],
    },
    Group {
        name: "IPv6 proxies",
        listen: "[::1]:0",
        variables: &[("trusted_proxies", "0:0:0:0:0:0:0:1/128, 2001:db8:a::/48")],
        rows: &[
            ("::1", &[(XFF, "203.0.113.9, 2001:db8:a:1::5")], Header("203.0.113.9")),
            ("::1", &[(XFF, "2001:db8:b::1, [2001:db8:a::5]:443")], Header("2001:db8:b::1")),
            ("::1", &[], Doubtful("::1")),
        ],
    },
    Group {
        name: "IPv4 on an IPv6 socket",
        listen: "[::ffff:127.0.0.1]:0",
        variables: &[("trusted_proxies", "127.0.0.1")],
        rows: &[
            (PROXY, &[(XFF, "203.0.113.9")], Header("203.0.113.9")),
            (PROXY, &[], Doubtful(PROXY)),
            (STRANGER, &[(XFF, "203.0.113.9")], Peer(&[XFF])),
        ],
    },
];

pub(crate) fn trials(bed: &Bed) -> Vec<Trial> {
    let mut trials = vec![];
    for group in GROUPS {
        if TcpListener::bind(group.listen).is_err() {
            eprintln!("address: {} is left out: this machine cannot listen on {}", group.name, group.listen);
            continue;
        }
        let server = bed.server(group.listen, group.variables);
        let header = group.variables.iter().find(|(name, _)| *name == "client_address_header");
        let header = header.map_or(XFF.to_owned(), |(_, value)| value.to_ascii_lowercase());
        for row in group.rows {
            let (peer, sent, expected) = row;
            let meaning = match expected {
                Peer(_) => "the peer".to_owned(),
                Header(address) => format!("{address}, verified"),
                Doubtful(address) => format!("{address}, not verified"),
            };
            let header = header.clone();
            let name = format!("address: {}: {peer} with {} is {meaning}", group.name, shown(sent));
            trials.push(trial(name, move || row_holds(server, row, &header)));
        }
    }
    trials
}

fn shown(headers: &[(&str, &str)]) -> String {
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    if headers.is_empty() { "no header".to_owned() } else { headers.join(" and ") }
}

fn row_holds(server: &Server, (peer, sent, expected): &Row, header: &str) {
    let peer_address: IpAddr = peer.parse().unwrap();
    let ask = |target| server.connect_from(Some(peer_address)).exchange(&get(target).headers(*sent));
    let report = ask("/?format=json").json();
    let address = &report["address"];
    let (ip, verified) = match expected {
        Peer(_) => (*peer, true),
        Header(ip) => (*ip, true),
        Doubtful(ip) => (*ip, false),
    };
    assert_eq!((&address["ip"], &address["verified"]), (&Value::from(ip), &Value::from(verified)), "{address:#}");
    assert_eq!(report["ip"], ip, "both say the same");

    let source = address["source"].as_str().unwrap();
    match expected {
        Peer(_) => assert_eq!(source, "peer"),
        Header(_) => assert_eq!(source, header),
        Doubtful(_) => assert!([header, "peer"].contains(&source), "{source}"),
    }

    let chain: Vec<&str> = address["chain"].as_array().unwrap().iter().map(|entry| entry.as_str().unwrap()).collect();
    assert_eq!(chain.last(), Some(peer), "{chain:?}");
    assert!(chain.contains(&ip), "{chain:?}");
    if let Peer(_) = expected {
        assert_eq!(chain, [*peer], "what is not believed is not part of the chain");
    }

    let explanation = address["explanation"].as_str().unwrap();
    assert!(explanation.starts_with(char::is_uppercase) && explanation.ends_with('.'), "{explanation:?}");
    assert!(!explanation.contains(char::is_control), "{explanation:?}");
    if let Peer(ignored) = expected {
        for name in *ignored {
            assert!(explanation.to_ascii_lowercase().contains(name), "{name} is not named: {explanation:?}");
        }
    }
    assert_eq!(ask("/ip").text(), format!("{ip}\n"));
}
