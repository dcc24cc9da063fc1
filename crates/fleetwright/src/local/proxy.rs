//! Which proxy an agent dials through: the one it was told, or the environment's.

use std::net::IpAddr;

use ipnet::IpNet;
use reqwest::Url;

use crate::config::{Environment, Proxy, http_proxy};

/// The proxy to reach `server` through; `None` to reach it directly.
///
/// Without one in the configuration it is that of `ALL_PROXY`, but for servers of this machine and
/// those that `NO_PROXY` names.
///
/// # Errors
/// `ALL_PROXY` names something that is no HTTP proxy.
pub(super) fn proxy(
    configured: &Proxy,
    env: &Environment,
    server: &str,
) -> anyhow::Result<Option<String>> {
    match configured {
        Proxy::Direct => return Ok(None),
        Proxy::Through(proxy) => return Ok(Some(proxy.clone())),
        Proxy::Unset => {}
    }
    let value = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, env.get(name)?)));
        found.filter(|(_, value)| !value.is_empty())
    };
    let Some((name, proxy)) = value(["ALL_PROXY", "all_proxy"]) else { return Ok(None) };
    let spared = value(["NO_PROXY", "no_proxy"]).map(|(_, list)| list.as_str());
    if is_direct(server, spared.unwrap_or_default()) {
        return Ok(None);
    }
    let proxy = http_proxy(proxy).map_err(|why| {
        anyhow::anyhow!("{name}: {why}; set agent.proxy to one, or to `none` to go without")
    });
    proxy.map(Some)
}

/// Whether `server` is on this machine, or `spared` names it: hosts, domains, addresses and
/// networks with commas between, or `*`.
fn is_direct(server: &str, spared: &str) -> bool {
    let Ok(url) = server.parse::<Url>() else { return false };
    let Some(host) = url.host_str() else { return false };
    let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.to_canonical().is_loopback()) {
        return true;
    }
    let names = |entry: &str| {
        let entry = entry.trim().to_ascii_lowercase();
        let domain = entry.trim_start_matches("*.").trim_start_matches('.');
        let below = || host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        let net = entry.parse::<IpNet>().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
        match (ip, net) {
            (Some(ip), Ok(net)) => net.contains(&ip),
            (_, _) if domain.is_empty() => false,
            (_, _) => entry == "*" || host == domain || (ip.is_none() && below()),
        }
    };
    spared.split(',').any(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "http://proxy:3128";

    #[test]
    fn the_environments_proxy_spares_this_machine_and_what_no_proxy_names() {
        let check = |server: &str, spared: &str, through: bool| {
            let env = [("ALL_PROXY", ALL), ("NO_PROXY", spared)];
            let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let found = proxy(&Proxy::Unset, &env, server).unwrap();
            assert_eq!(found.is_some(), through, "{server} {spared}");
        };
        check("https://fleet.example.com:7400", "", true);
        check("https://fleet.example.com", "other.com,ample.com", true);
        check("https://fleet.example.com", "a, .example.com", false);
        check("https://fleet.example.com", "FLEET.example.com", false);
        check("https://fleet.example.com", "*", false);
        check("http://10.1.2.3:7400", "10.0.0.0/8", false);
        check("http://10.1.2.3:7400", "10.1.2.4,3", true);
        check("http://127.0.0.1:7400", "", false);
        check("http://[::1]:7400", "", false);
        check("http://localhost:7400", "", false);
    }

    #[test]
    fn the_configuration_comes_before_the_environment() {
        let env: Environment = [("all_proxy".to_owned(), "socks5://p:1080".to_owned())].into();
        let server = "https://fleet.example.com";
        assert_eq!(proxy(&Proxy::Direct, &env, server).unwrap(), None);
        let own = Proxy::Through(ALL.to_owned());
        assert_eq!(proxy(&own, &env, server).unwrap().as_deref(), Some(ALL));
        let refused = proxy(&Proxy::Unset, &env, server).unwrap_err().to_string();
        insta::assert_snapshot!(refused, @"all_proxy: a proxy of the kind socks5 is not supported; write it as http://HOST:PORT; set agent.proxy to one, or to `none` to go without");
    }
}
