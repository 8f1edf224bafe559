//! Which clients a command is about.

/// What kind a client is of, as Redis tells them apart. There are no replicas, and no master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// It asks, and is answered.
    Normal,
    /// It has subscribed to something.
    Pubsub,
    /// A server that this one follows, or one that follows this one.
    Peer,
}

/// The clients that `CLIENT LIST` or `CLIENT KILL` is about: those that are everything that it names.
#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// Those with these numbers, in ascending order; `None` for any.
    pub ids: Option<Vec<u64>>,
    /// Those of this kind.
    pub kind: Option<ClientKind>,
    /// Those that have connected from here.
    pub peer: Option<Box<[u8]>>,
    /// Those that have connected to here.
    pub local: Option<Box<[u8]>>,
    /// All but this one.
    pub except: Option<u64>,
    /// The one that asks.
    pub asker: u64,
}

impl ClientFilter {
    /// Whether the filter names a client. `addresses` writes from and to where it has connected.
    pub fn names(&self, id: u64, kind: ClientKind, addresses: impl FnOnce() -> [String; 2]) -> bool {
        let fits = self.ids.as_ref().is_none_or(|ids| ids.binary_search(&id).is_ok())
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.except != Some(id);
        if !fits || (self.peer.is_none() && self.local.is_none()) {
            return fits;
        }
        let is = |wanted: &Option<Box<[u8]>>, address: &str| {
            wanted.as_ref().is_none_or(|wanted| **wanted == *address.as_bytes())
        };
        let [peer, local] = addresses();
        is(&self.peer, &peer) && is(&self.local, &local)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_named_that_is_everything_the_filter_says() {
        let named = |filter: &ClientFilter| {
            filter.names(7, ClientKind::Normal, || ["1.2.3.4:5".into(), "5.6.7.8:9".into()])
        };
        let any = ClientFilter::default();
        assert!(named(&any));
        assert!(named(&ClientFilter { ids: Some(vec![1, 7]), ..any.clone() }));
        assert!(!named(&ClientFilter { ids: Some(vec![]), ..any.clone() }));
        assert!(!named(&ClientFilter { except: Some(7), ..any.clone() }));
        assert!(!named(&ClientFilter { kind: Some(ClientKind::Pubsub), ..any.clone() }));
        let at = |peer: &str| Some(peer.as_bytes().into());
        assert!(named(&ClientFilter { peer: at("1.2.3.4:5"), local: at("5.6.7.8:9"), ..any.clone() }));
        assert!(!named(&ClientFilter { peer: at("1.2.3.4:5"), local: at("5.6.7.8:1"), ..any }));
    }
}
