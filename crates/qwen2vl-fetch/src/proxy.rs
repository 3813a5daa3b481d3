//! Which proxy an address goes through, as curl decides it: by the address's scheme, lower-case variables first.
//! `ureq` itself takes one proxy for everything.

use ureq::Proxy;

/// The proxy for `url` out of the variables that `variable` gives; `Err` holds what cannot be read.
pub(crate) fn for_url(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Option<Proxy>, String> {
    let either = |name: &str| {
        let set = |name: &str| variable(name).filter(|v| !v.trim().is_empty());
        set(name).or_else(|| set(&name.to_ascii_uppercase()))
    };
    let https = url.get(..6).is_some_and(|s| s.eq_ignore_ascii_case("https:"));
    let own = if https { "https_proxy" } else { "http_proxy" };
    let Some(given) = either(own).or_else(|| either("all_proxy")) else { return Ok(None) };
    let no_proxy = either("no_proxy").unwrap_or_default();
    build(given.trim(), &no_proxy).map(Some).map_err(|_| without_credentials(&given))
}

fn build(given: &str, no_proxy: &str) -> Result<Proxy, ureq::Error> {
    let proxy = Proxy::new(given)?;
    let mut builder = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(username) = proxy.username() {
        builder = builder.username(username);
    }
    if let Some(password) = proxy.password() {
        builder = builder.password(password);
    }
    for host in no_proxy.split(',').map(str::trim).filter(|h| !h.is_empty()) {
        // A name stands for itself and for what is below it, with or without a dot before it.
        let bare = host.trim_start_matches("*.").trim_start_matches('.');
        builder = builder.no_proxy(bare);
        if bare != "*" {
            builder = builder.no_proxy(&format!(".{bare}"));
        }
    }
    builder.build()
}

/// For messages.
pub(crate) fn without_credentials(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").map_or(("", proxy), |(s, r)| (s, r));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variable =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let proxy = for_url(url, variable).expect("readable")?;
        (!proxy.is_no_proxy(&url.parse().expect("an address")))
            .then(|| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn the_variables_decide_as_in_curl() {
        let (http, https) = ("http://a.example/x", "https://a.example/x");
        type Case = (&'static str, &'static [(&'static str, &'static str)], Option<&'static str>);
        let cases: &[Case] = &[
            (http, &[], None),
            (http, &[("http_proxy", "http://p:1")], Some("p:1")),
            (https, &[("http_proxy", "http://p:1")], None),
            (https, &[("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://q:2")], Some("p:1")),
            (http, &[("HTTPS_PROXY", "http://p:1"), ("HTTP_PROXY", "http://q:2")], Some("q:2")),
            (https, &[("https_proxy", "http://p:1"), ("HTTPS_PROXY", "http://q:2")], Some("p:1")),
            (https, &[("ALL_PROXY", "socks5://p:1")], Some("p:1")),
            (https, &[("https_proxy", "q:2"), ("all_proxy", "p:1")], Some("q:2")),
            (https, &[("https_proxy", ""), ("all_proxy", "p:1")], Some("p:1")),
            (https, &[("https_proxy", "p:1"), ("no_proxy", "b.example, a.example")], None),
            (https, &[("https_proxy", "p:1"), ("NO_PROXY", ".example")], None),
            (https, &[("https_proxy", "p:1"), ("NO_PROXY", "example")], None),
            (https, &[("https_proxy", "p:1"), ("NO_PROXY", "*.example")], None),
            (https, &[("https_proxy", "p:1"), ("NO_PROXY", "*")], None),
            (https, &[("https_proxy", "p:1"), ("NO_PROXY", "aa.example")], Some("p:1")),
        ];
        for (url, variables, want) in cases {
            assert_eq!(chosen(url, variables).as_deref(), *want, "{url} {variables:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_without_its_password() {
        let problem =
            for_url("http://a/", |n| (n == "http_proxy").then(|| "ftp://user:secret@p:1".to_owned()));
        assert_eq!(problem.err().as_deref(), Some("ftp://p:1"));
    }
}
