//! Which doors and which upstreams go together.

use std::net::SocketAddr;

/// What a configuration lets in and what it lends to whom it lets in.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The door.
    pub entrance: Entrance,
    /// Whether anybody may come in who shows nothing, because the operator wrote `allow_anonymous = true`.
    pub anyone: Anyone,
    /// Where clients connect.
    pub listen: &'a [SocketAddr],
    /// The upstreams' names, each with the credentials that go to it.
    pub upstreams: &'a [(&'a str, Credentials)],
}

/// What a gateway has for a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// None.
    Open,
    /// One that looks at the clients' `Authorization`: passwords or tokens, whatever else it goes by.
    Authorization,
    /// One that goes by client certificates alone.
    Certificate,
}

/// Whether anybody may come in who shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anyone {
    /// The operator did not say so.
    Unsaid,
    /// The operator said so.
    Allowed,
}

/// Whose credentials go to an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Nobody's.
    None,
    /// The client's own.
    Callers,
    /// Those that the gateway holds.
    Gateways,
}

/// Why a configuration is not safe to run. `Display` is for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsafePlan {
    /// The client's `Authorization` would be for the door and for the upstream.
    #[error(
        "the upstream `{upstream}` passes the client's own credentials through, and the door of the gateway wants them for \
         itself: give the upstream credentials of its own, or let the door go by client certificates"
    )]
    TwoReaders {
        /// The upstream.
        upstream: String,
    },
    /// Anybody on the network could use what the gateway is trusted with.
    #[error(
        "the gateway holds credentials for the upstream `{upstream}` and listens on {address}, where anybody could use them: \
         set a file of passwords or of tokens or the names in client certificates, listen on 127.0.0.1, or write \
         `allow_anonymous = true`"
    )]
    OpenToAnybody {
        /// The first upstream with credentials.
        upstream: String,
        /// The first address that is not this machine's own.
        address: SocketAddr,
    },
}

/// Whether a configuration is safe to run.
pub fn check(plan: &Plan<'_>) -> Result<(), UnsafePlan> {
    let with =
        |kind| plan.upstreams.iter().find(|(_, credentials)| *credentials == kind).map(|(name, _)| (*name).to_owned());
    if plan.entrance == Entrance::Authorization
        && let Some(upstream) = with(Credentials::Callers)
    {
        return Err(UnsafePlan::TwoReaders { upstream });
    }
    let beyond = plan.listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
    if plan.entrance == Entrance::Open
        && plan.anyone == Anyone::Unsaid
        && let (Some(upstream), Some(address)) = (with(Credentials::Gateways), beyond)
    {
        return Err(UnsafePlan::OpenToAnybody { upstream, address: *address });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: [&str; 3] = ["127.0.0.1:5000", "[::1]:5000", "[::ffff:127.0.0.1]:5000"];
    const BEYOND: [&str; 5] =
        ["0.0.0.0:5000", "[::]:5000", "192.0.2.1:5000", "[2001:db8::1]:5000", "[::ffff:192.0.2.1]:5000"];

    fn checked(
        entrance: Entrance,
        anyone: Anyone,
        listen: &[&str],
        upstreams: &[Credentials],
    ) -> Result<(), UnsafePlan> {
        let listen: Vec<SocketAddr> = listen.iter().map(|address| address.parse().unwrap()).collect();
        let named: Vec<_> = upstreams.iter().map(|credentials| ("corp", *credentials)).collect();
        check(&Plan { entrance, anyone, listen: &listen, upstreams: &named })
    }

    #[test]
    fn what_the_client_sends_is_for_the_door_or_for_the_upstream() {
        for anyone in [Anyone::Unsaid, Anyone::Allowed] {
            for listen in [LOOPBACK[0], BEYOND[0]] {
                let two = |entrance, credentials: &[Credentials]| checked(entrance, anyone, &[listen], credentials);
                let refused = Err(UnsafePlan::TwoReaders { upstream: "corp".to_owned() });
                assert_eq!(two(Entrance::Authorization, &[Credentials::Callers]), refused);
                assert_eq!(two(Entrance::Authorization, &[Credentials::Gateways, Credentials::Callers]), refused);
                assert_eq!(two(Entrance::Authorization, &[Credentials::Gateways, Credentials::None]), Ok(()));
                assert_eq!(two(Entrance::Certificate, &[Credentials::Callers]), Ok(()));
                assert_eq!(two(Entrance::Open, &[Credentials::Callers]), Ok(()));
            }
        }
    }

    #[test]
    fn held_credentials_are_not_for_anybody_on_the_network() {
        let held = [Credentials::None, Credentials::Gateways];
        for address in BEYOND {
            let listen = [LOOPBACK[0], address];
            let refused = UnsafePlan::OpenToAnybody { upstream: "corp".to_owned(), address: address.parse().unwrap() };
            assert_eq!(checked(Entrance::Open, Anyone::Unsaid, &listen, &held), Err(refused));
            assert_eq!(checked(Entrance::Open, Anyone::Allowed, &listen, &held), Ok(()));
            for entrance in [Entrance::Authorization, Entrance::Certificate] {
                assert_eq!(checked(entrance, Anyone::Unsaid, &listen, &held), Ok(()));
            }
            for harmless in [Credentials::None, Credentials::Callers] {
                assert_eq!(checked(Entrance::Open, Anyone::Unsaid, &listen, &[harmless]), Ok(()));
            }
        }
        assert_eq!(checked(Entrance::Open, Anyone::Unsaid, &LOOPBACK, &held), Ok(()));
    }

    #[test]
    fn the_words_say_what_to_do() {
        let two = UnsafePlan::TwoReaders { upstream: "corp".to_owned() }.to_string();
        assert!(two.contains("`corp`") && two.contains("client certificates"), "{two}");
        let address = "0.0.0.0:5000".parse().unwrap();
        let open = UnsafePlan::OpenToAnybody { upstream: "hub".to_owned(), address }.to_string();
        assert!(open.contains("0.0.0.0:5000") && open.contains("`allow_anonymous = true`"), "{open}");
    }
}
