//! What is to be done about certificates: one step at a time, decided from what is known, without doing anything.
//!
//! The order in which a CA is replaced, each step seen by everybody before the next one:
//!
//! ```text
//! new CA into the Secret ──> into every caBundle ──> seen there for a while ──> new leaf, signed by it ──> the old CA leaves the bundle
//! ```
//!
//! Any replica may take any step: a step is stored by compare-and-swap, and who comes second finds it done.

use std::time::{Duration, SystemTime};

use super::authority::{Authority, CertificateError, Details, Leaf};

/// How long certificates live, and how they are replaced.
#[derive(Debug, Clone)]
pub(crate) struct Lifetimes {
    pub(crate) authority: Duration,
    pub(crate) leaf: Duration,
    /// For how long a new CA must have been seen in every caBundle before a certificate is served that it signed.
    pub(crate) propagation: Duration,
    /// For how long a CA that nobody uses any more stays in the caBundle.
    pub(crate) overlap: Duration,
}

impl Lifetimes {
    /// Renewal at two thirds; and what lives longer than it would if it were made today was made with other settings.
    fn is_worn(lifetime: Duration, details: &Details, now: SystemTime) -> bool {
        let remaining = details.remaining(now);
        let is_due = remaining < lifetime / 3;
        let is_foreign = remaining > lifetime + lifetime / 10 + CLOCKS;
        (is_due || is_foreign) && details.age(now) >= REST.min(lifetime / 4)
    }
}

/// What was made just now is left alone whatever the settings are: while an upgrade changes them, replicas with the old and with
/// the new ones would renew each other's certificates without end.
const REST: Duration = Duration::from_secs(30);

/// By how much the clocks of two API servers may differ without a replica renewing what another has just made.
const CLOCKS: Duration = Duration::from_mins(1);

/// What the replicas share: the CA, the certificate that all of them serve, and the next CA while it is introduced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificates {
    pub(crate) authority: Authority,
    pub(crate) leaf: Leaf,
    pub(crate) next: Option<Authority>,
}

impl Certificates {
    /// New ones of everything.
    pub(crate) fn make(
        lifetimes: &Lifetimes,
        names: &[String],
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let authority = Authority::make(lifetimes.authority, now)?;
        let leaf = authority.issue(names, lifetimes.leaf, now)?;
        Ok(Certificates { authority, leaf, next: None })
    }

    /// The CA certificates that every caBundle must have.
    pub(crate) fn authorities(&self) -> impl Iterator<Item = &Authority> {
        [Some(&self.authority), self.next.as_ref()].into_iter().flatten()
    }
}

/// What of it is stored; what cannot be read is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) authority: Option<Authority>,
    pub(crate) leaf: Option<Leaf>,
    pub(crate) next: Option<Authority>,
    /// What somebody asks for, by annotation.
    pub(crate) request: Option<Request>,
}

impl From<Certificates> for Stored {
    fn from(certificates: Certificates) -> Self {
        let Certificates { authority, leaf, next } = certificates;
        Stored { authority: Some(authority), leaf: Some(leaf), next, request: None }
    }
}

impl Stored {
    /// For how long the next CA must have been in every bundle: not until the one that signs now has expired.
    pub(crate) fn patience(&self, lifetimes: &Lifetimes, now: SystemTime) -> Duration {
        let left = self.authority.as_ref().map(|authority| authority.details.remaining(now));
        left.map_or(Duration::ZERO, |left| lifetimes.propagation.min(left / 4))
    }

    /// All of it, if all of it can be used.
    pub(crate) fn whole(&self) -> Option<Certificates> {
        Some(Certificates {
            authority: self.authority.clone()?,
            leaf: self.leaf.clone()?,
            next: self.next.clone(),
        })
    }
}

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Leaf,
    Authority,
}

/// What is to be stored, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) certificates: Certificates,
    pub(crate) why: Why,
}

/// Why something else is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// There was no usable CA.
    Restored,
    /// The CA has expired: nothing that it signed is good any more.
    Expired,
    /// A new CA, to be trusted before it is used.
    Introduced,
    /// The new CA is trusted everywhere.
    Promoted,
    /// A new leaf of the same CA.
    Renewed,
    /// The next CA is not wanted any more.
    Withdrawn,
}

impl Why {
    /// For the log.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Why::Restored => "the Secret had no usable CA: what this replica serves is in it now",
            Why::Expired => "the CA had expired: there are a new CA and a new certificate",
            Why::Introduced => {
                "a new CA is being introduced; it signs nothing before every webhook trusts it"
            }
            Why::Promoted => "every webhook trusts the new CA: it has signed a new certificate",
            Why::Renewed => "there is a new certificate of the same CA",
            Why::Withdrawn => {
                "the next CA was made too long ago, or with other settings: it will sign nothing"
            }
        }
    }

    /// Whether what was asked for is done with it; what nobody understands is not asked for.
    pub(crate) fn fulfils(self, request: Option<Request>) -> bool {
        match request {
            Some(Request::Authority) => self.roles().contains(&"ca"),
            Some(Request::Leaf) => self.roles().contains(&"leaf"),
            None => true,
        }
    }

    /// What is counted as a rotation, by role.
    pub(crate) fn roles(self) -> &'static [&'static str] {
        match self {
            Why::Introduced | Why::Withdrawn => &[],
            Why::Renewed => &["leaf"],
            Why::Restored | Why::Expired | Why::Promoted => &["leaf", "ca"],
        }
    }
}

/// What is known when a step is decided.
pub(crate) struct Situation<'s> {
    pub(crate) stored: Stored,
    /// What this replica has in memory: the last good state, or what it made for itself at its start.
    pub(crate) held: &'s Certificates,
    /// Whether every caBundle has had the next CA for long enough.
    pub(crate) is_next_trusted: bool,
    pub(crate) names: &'s [String],
    pub(crate) lifetimes: &'s Lifetimes,
    /// By the API server's clock: it is the API server that looks at the dates.
    pub(crate) now: SystemTime,
}

impl Situation<'_> {
    /// What is to be stored next; nothing when all is well.
    pub(crate) fn step(self) -> Result<Option<Step>, CertificateError> {
        let Situation { stored, held, is_next_trusted, names, lifetimes, now } = self;
        let step = |certificates, why| Ok(Some(Step { certificates, why }));
        let Some(authority) = stored.authority else {
            if held.authority.details.is_valid(now) && is_good(&held.leaf, names, now) {
                return step(held.clone(), Why::Restored);
            }
            return step(Certificates::make(lifetimes, names, now)?, Why::Restored);
        };
        // Once the CA has expired there is nothing left to be careful about: no API server takes what it signed.
        let has_expired = !authority.details.is_valid(now);
        let is_worn =
            |authority: &Authority| Lifetimes::is_worn(lifetimes.authority, &authority.details, now);
        if let Some(next) = &stored.next
            && next.details.is_valid(now)
            && (has_expired || is_next_trusted && !is_worn(next))
        {
            let leaf = next.issue(names, lifetimes.leaf, now)?;
            return step(Certificates { authority: next.clone(), leaf, next: None }, Why::Promoted);
        }
        if has_expired {
            return step(Certificates::make(lifetimes, names, now)?, Why::Expired);
        }
        // None outlives its CA.
        let lifetime = lifetimes.leaf.min(authority.details.remaining(now));
        let leaf = stored.leaf.filter(|leaf| {
            is_good(leaf, names, now)
                && is_signed_by(leaf, &authority, now)
                && !Lifetimes::is_worn(lifetime, &leaf.details, now)
                && stored.request != Some(Request::Leaf)
        });
        let Some(leaf) = leaf else {
            let leaf = authority.issue(names, lifetimes.leaf, now)?;
            return step(Certificates { authority, leaf, next: stored.next }, Why::Renewed);
        };
        let is_wanted = is_worn(&authority) || stored.request == Some(Request::Authority);
        // One that nobody came to trust in all its time is no successor.
        let is_next_worn = stored.next.as_ref().map(is_worn);
        match (is_wanted, is_next_worn) {
            (true, None | Some(true)) => {
                let next = Some(Authority::make(lifetimes.authority, now)?);
                step(Certificates { authority, leaf, next }, Why::Introduced)
            }
            (false, Some(true)) => step(Certificates { authority, leaf, next: None }, Why::Withdrawn),
            (_, None | Some(false)) => Ok(None),
        }
    }
}

/// Whether an API server that trusts its CA takes it.
fn is_good(leaf: &Leaf, names: &[String], now: SystemTime) -> bool {
    leaf.details.is_valid(now) && names.iter().all(|name| leaf.details.is_for(name))
}

fn is_signed_by(leaf: &Leaf, authority: &Authority, now: SystemTime) -> bool {
    let names = leaf.details.names.iter().map(String::as_str);
    super::bundle::verify([&authority.details.der], &leaf.details.der, names, now).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn lifetimes() -> Lifetimes {
        let (propagation, overlap) = (Duration::from_secs(30), Duration::from_hours(1));
        Lifetimes { authority: 1800 * DAY, leaf: 90 * DAY, propagation, overlap }
    }

    fn names() -> Vec<String> {
        vec!["injector.default.svc".to_owned()]
    }

    fn start() -> SystemTime {
        // A whole second, as certificates have it.
        SystemTime::UNIX_EPOCH + 20_000 * DAY
    }

    fn made() -> Certificates {
        Certificates::make(&lifetimes(), &names(), start()).unwrap()
    }

    fn stored(certificates: &Certificates) -> Stored {
        certificates.clone().into()
    }

    /// The next step for what is stored, for a replica that has `held`.
    fn step(stored: Stored, held: &Certificates, is_next_trusted: bool, days: u32) -> Option<Step> {
        let (names, lifetimes, now) = (names(), lifetimes(), start() + days * DAY);
        let situation =
            Situation { stored, held, is_next_trusted, names: &names, lifetimes: &lifetimes, now };
        situation.step().unwrap()
    }

    fn why(step: Option<&Step>) -> Option<Why> {
        step.map(|step| step.why)
    }

    #[test]
    fn an_empty_secret_gets_what_the_replica_has() {
        let held = made();
        let step = step(Stored::default(), &held, false, 0).unwrap();
        assert_eq!((step.certificates, step.why), (held, Why::Restored));
    }

    #[test]
    fn what_has_expired_in_memory_is_not_restored() {
        let held = made();
        let step = step(Stored::default(), &held, false, 91).unwrap();
        assert_ne!(step.certificates.authority, held.authority);
    }

    #[test]
    fn a_leaf_is_renewed_in_the_last_third_and_not_again() {
        let held = made();
        assert_eq!(step(stored(&held), &held, false, 59), None);
        let renewed = step(stored(&held), &held, false, 61).unwrap();
        assert_eq!(renewed.why, Why::Renewed);
        assert_eq!(renewed.certificates.authority, held.authority);
        assert_ne!(renewed.certificates.leaf, held.leaf);
        assert_eq!(step(stored(&renewed.certificates), &held, false, 61), None);
    }

    #[test]
    fn a_new_authority_signs_nothing_before_it_is_trusted() {
        let mut held = made();
        // A leaf that is not what is looked at here.
        let leaf = |held: &Certificates, days: u32| {
            held.authority.issue(&names(), lifetimes().leaf, start() + days * DAY).unwrap()
        };
        held.leaf = leaf(&held, 1190);
        assert_eq!(step(stored(&held), &held, false, 1199), None);
        held.leaf = leaf(&held, 1201);
        let introduced = step(stored(&held), &held, false, 1201).unwrap();
        assert_eq!(introduced.why, Why::Introduced);
        assert_eq!(introduced.certificates.leaf, held.leaf);
        let both: Vec<_> = introduced.certificates.authorities().collect();
        assert_eq!(both.len(), 2);

        assert_eq!(step(stored(&introduced.certificates), &held, false, 1201), None);
        let promoted = step(stored(&introduced.certificates), &held, true, 1201).unwrap();
        assert_eq!(promoted.why, Why::Promoted);
        assert_eq!(Some(&promoted.certificates.authority), introduced.certificates.next.as_ref());
        assert!(is_signed_by(
            &promoted.certificates.leaf,
            &promoted.certificates.authority,
            start() + 1201 * DAY
        ));
        assert_eq!(step(stored(&promoted.certificates), &held, false, 1201), None);
    }

    #[test]
    fn after_years_of_sleep_everything_is_made_anew() {
        let held = made();
        let step = step(stored(&held), &held, false, 2000).unwrap();
        assert_eq!(step.why, Why::Expired);
        assert!(step.certificates.authority.details.is_valid(start() + 2000 * DAY));
    }

    #[test]
    fn a_next_authority_that_has_grown_old_is_replaced() {
        let mut held = made();
        held.leaf = held.authority.issue(&names(), lifetimes().leaf, start() + 1300 * DAY).unwrap();
        let of = |days: u32| Some(Authority::make(lifetimes().authority, start() + days * DAY).unwrap());
        held.next = of(1250);
        assert_eq!(step(stored(&held), &held, false, 1300), None);
        held.next = of(0);
        assert_eq!(why(step(stored(&held), &held, false, 1300).as_ref()), Some(Why::Introduced));
    }

    #[test]
    fn nobody_waits_for_longer_than_the_old_authority_lives() {
        let stored = stored(&made());
        let patience = |left: Duration| stored.patience(&lifetimes(), start() + 1800 * DAY - left);
        assert_eq!(patience(DAY), Duration::from_secs(30));
        assert_eq!(patience(Duration::from_secs(40)), Duration::from_secs(10));
    }

    #[test]
    fn an_expired_authority_gives_way_to_the_next_one_whoever_trusts_it() {
        let mut held = made();
        held.next = Some(Authority::make(lifetimes().authority, start() + 1500 * DAY).unwrap());
        let step = step(stored(&held), &held, false, 2000).unwrap();
        assert_eq!((step.why, Some(step.certificates.authority)), (Why::Promoted, held.next));
    }

    #[test]
    fn a_leaf_for_another_name_or_of_another_authority_is_replaced() {
        let held = made();
        let mut other = held.clone();
        other.leaf =
            held.authority.issue(&["other.default.svc".to_owned()], lifetimes().leaf, start()).unwrap();
        assert_eq!(why(step(stored(&other), &held, false, 0).as_ref()), Some(Why::Renewed));
        other.leaf = made().leaf;
        assert_eq!(why(step(stored(&other), &held, false, 0).as_ref()), Some(Why::Renewed));
    }

    #[test]
    fn what_is_asked_for_is_done() {
        let held = made();
        let asked = |what| Stored { request: Some(what), ..stored(&held) };
        assert_eq!(why(step(asked(Request::Leaf), &held, false, 0).as_ref()), Some(Why::Renewed));
        let introduced = step(asked(Request::Authority), &held, false, 0).unwrap();
        assert_eq!(introduced.why, Why::Introduced);
        // Until the new one is trusted the request is still there, and does not ask for another.
        let waiting = Stored { request: Some(Request::Authority), ..stored(&introduced.certificates) };
        assert_eq!(step(waiting.clone(), &held, false, 0), None);
        assert_eq!(why(step(waiting, &held, true, 0).as_ref()), Some(Why::Promoted));
    }

    #[test]
    fn a_request_stays_until_it_is_done() {
        assert!(!Why::Renewed.fulfils(Some(Request::Authority)), "a leaf happened to be due");
        assert!(!Why::Introduced.fulfils(Some(Request::Authority)));
        assert!(Why::Promoted.fulfils(Some(Request::Authority)));
        assert!(Why::Renewed.fulfils(Some(Request::Leaf)));
    }

    #[test]
    fn lifetimes_that_were_shortened_take_effect_when_what_there_is_was_not_made_just_now() {
        let held = made();
        let names = names();
        let lifetimes = Lifetimes { leaf: DAY, ..lifetimes() };
        let step = |age| {
            let (stored, now) = (stored(&held), start() + age);
            let (held, names, lifetimes, is_next_trusted) = (&held, &names, &lifetimes, false);
            let step = Situation { stored, held, is_next_trusted, names, lifetimes, now }.step().unwrap();
            why(step.as_ref())
        };
        assert_eq!(step(Duration::from_secs(29)), None);
        assert_eq!(step(Duration::from_secs(30)), Some(Why::Renewed));
    }

    #[test]
    fn a_next_authority_of_other_settings_is_withdrawn_and_never_promoted() {
        let mut held = made();
        // Made by a replica that an upgrade was taking away.
        held.next = Some(Authority::make(100 * DAY, start()).unwrap());
        assert_eq!(step(stored(&held), &held, true, 1).unwrap().why, Why::Withdrawn);
        assert_eq!(step(stored(&held), &held, true, 1).unwrap().certificates.next, None);
        let asked = Stored { request: Some(Request::Authority), ..stored(&held) };
        assert_eq!(why(step(asked, &held, true, 1).as_ref()), Some(Why::Introduced));
    }
}
