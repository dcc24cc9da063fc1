//! URLs of webhooks and checks.

/// What is wrong with a URL (RFC 3986 §3); the host itself is for the resolver.
pub(crate) fn wrong_url(url: &str) -> Option<&'static str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return Some("a URL begins with https:// or http://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some(
            "a URL is shown to all users, so it cannot hold a name or password; use a command",
        );
    }
    if url.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Some("a URL has no spaces; write %20 for one");
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (authority, None),
    };
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good_host = match literal {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty() && !host.contains(['[', ']', ':', '\\', '<', '>', '"', '`', '^', '|'])
        }
    };
    if !good_host {
        return Some("this URL names no host; write https://host/path");
    }
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    (!good_port).then_some("the port of this URL is outside 1 to 65535")
}
