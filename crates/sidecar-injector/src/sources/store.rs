//! The definitions of all sources together: who has a name, what serves, and what is wrong with the rest.
//!
//! A definition that becomes bad goes on serving as it was when it was good. A name that two places want is served
//! from the place that had it first. What is wrong is said once, when it begins to be wrong.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use sidecar_engine::definition::{Compiled, DefinitionName, Kind, Problem, ReadOptions};
use sidecar_engine::{Engine, Reason, Reviewed};
use tokio::sync::watch;
use tracing::{info, warn};

use super::metrics::{Metrics, States};
use super::reading::Document;

/// At most so many names in one line of the log.
const NAMES: usize = 20;

/// Who says what there is: each source says it completely, every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Files,
    Resources(Kind),
}

/// A part of a source that can be bad by itself: a file, or all objects of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) origin: Arc<str>,
    pub(crate) documents: Arc<[Document]>,
}

/// What does not change while the server runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// Absent: the engine's own.
    pub(crate) excluded_namespaces: Option<Vec<String>>,
    /// How strictly definitions are read.
    pub(crate) options: ReadOptions,
    /// Whether the labels of namespaces are known.
    pub(crate) knows_namespaces: bool,
}

/// All definitions.
#[derive(Debug)]
pub(crate) struct Store {
    settings: Settings,
    loaded: ArcSwap<Loaded>,
    /// For those who load; nobody who answers a review looks at it.
    state: Mutex<State>,
    metrics: Metrics,
    /// Counted up when other definitions are served.
    changes: watch::Sender<u64>,
}

/// What reviews are answered with.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) engine: Engine,
    /// Where the definitions that are served from files stand.
    files: HashMap<DefinitionName, Arc<str>>,
    /// How often each definition was injected, by the name that decisions have for it.
    injections: HashMap<String, Counter>,
}

#[derive(Debug, Default)]
struct State {
    /// Who wants a name; the first serves, if it has ever been good.
    claims: BTreeMap<DefinitionName, Vec<Claim>>,
    /// What has no name that could be read.
    nameless: Vec<(Source, Arc<str>, Document)>,
    /// What was said to be wrong already.
    said: BTreeSet<Complaint>,
}

/// A place that wants to serve a name.
#[derive(Debug)]
struct Claim {
    source: Source,
    origin: Arc<str>,
    place: Arc<str>,
    /// Its last good version.
    good: Option<Arc<Compiled>>,
    /// What is wrong with the version that is there now.
    problems: Option<Arc<[Problem]>>,
    /// Whether it was not seen the last time, and is kept because it may be in something that cannot be read.
    is_out_of_sight: bool,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Complaint {
    /// Empty when not even that can be read.
    definition: String,
    place: Arc<str>,
    /// One line for each problem.
    problems: String,
    /// Whether an earlier version of it, which was good, is served meanwhile.
    keeps_good: bool,
}

/// What an update changed for reviews.
#[derive(Debug, Default)]
struct Difference {
    added: Vec<DefinitionName>,
    changed: Vec<DefinitionName>,
    removed: Vec<DefinitionName>,
}

impl Store {
    /// A store of nothing yet.
    pub(crate) fn new(settings: Settings) -> Self {
        let engine = engine(Vec::new(), &settings);
        Store::of(engine, settings)
    }

    /// A store of the article's definition alone, for a start without configuration.
    pub(crate) fn builtin(settings: Settings) -> Self {
        let builtin = match settings.excluded_namespaces.clone() {
            None => Engine::builtin(),
            Some(excluded) => Engine::builtin().with_excluded_namespaces(excluded),
        };
        let store = Store::of(builtin, settings);
        let ready = store.current().engine.definitions().count();
        store.metrics.loaded(States { ready, ..States::default() }, 0);
        store
    }

    fn of(engine: Engine, settings: Settings) -> Self {
        let metrics = Metrics::default();
        let injections = injections(&engine, &metrics);
        let loaded = ArcSwap::from_pointee(Loaded { engine, files: HashMap::new(), injections });
        Store { settings, loaded, state: Mutex::default(), metrics, changes: watch::Sender::default() }
    }

    /// Has the definitions among the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// How strictly definitions are read.
    pub(crate) fn options(&self) -> ReadOptions {
        self.settings.options
    }

    /// What reviews are answered with now.
    pub(crate) fn current(&self) -> Guard<Arc<Loaded>> {
        self.loaded.load()
    }

    /// Takes in all that a source has now, in the order in which names are given away.
    pub(crate) fn update(&self, source: Source, parts: &[Part]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.serving();
        state.take_in(source, parts);
        let after = state.serving();
        let difference = Difference::between(&before, &after);
        let definitions = after.into_iter().map(|(_, definition)| definition).collect();
        let files = state.served_from_files();
        // Others write into objects too, their status for example: nothing to do for reviews.
        if !difference.is_empty() || files != self.current().files {
            let engine = engine(definitions, &self.settings);
            let injections = injections(&engine, &self.metrics);
            self.loaded.store(Arc::new(Loaded { engine, files, injections }));
        }
        for name in &difference.removed {
            self.metrics.forget(&name.shown());
        }
        if !difference.is_empty() {
            self.changes.send_modify(|changes| *changes += 1);
        }
        self.say(&mut state, &difference);
    }

    /// Where to see that other definitions are served than before.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The file that has the name of an object of the cluster, if one has, and what it has is good: where both are read
    /// at a start, the file comes first.
    pub(crate) fn taken_by_a_file(&self, name: &DefinitionName) -> Option<Arc<str>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = state.claims.get(name)?.iter();
        let mut files = claims.filter(|claim| claim.source == Source::Files && claim.good.is_some());
        files.next().map(|claim| claim.place.clone())
    }

    fn say(&self, state: &mut State, difference: &Difference) {
        let complaints: BTreeSet<_> = state.complaints().into_iter().collect();
        self.metrics.loaded(state.states(), complaints.difference(&state.said).count());
        for complaint in complaints.difference(&state.said) {
            let then = if complaint.keeps_good { "keeping the last good version" } else { "not served" };
            warn!(
                event = "definition_invalid",
                definition = complaint.definition,
                source = &*complaint.place,
                problems = complaint.problems,
                "{then}"
            );
        }
        state.said = complaints;
        if !self.settings.knows_namespaces {
            for name in difference.added.iter().chain(&difference.changed) {
                if state.serves(name).is_some_and(Compiled::needs_namespace_labels) {
                    warn!(
                        event = "namespaces_unknown",
                        definition = name.shown(),
                        "it selects by labels of namespaces, and namespaces are not watched: set WATCH_NAMESPACES=true"
                    );
                }
            }
        }
        for name in difference.removed.iter().take(NAMES) {
            info!(event = "definition_removed", definition = name.shown(), "not served any more");
        }
        if !difference.is_empty() {
            info!(
                event = "definitions_loaded",
                definitions = state.claims.values().filter(|claims| serving(claims).is_some()).count(),
                invalid = state.said.len(),
                added = names(&difference.added),
                changed = names(&difference.changed),
                removed = names(&difference.removed),
                "serving other definitions"
            );
        }
    }
}

impl Loaded {
    /// Counts what a review did.
    pub(crate) fn count(&self, reviewed: &Reviewed<'_>) {
        if reviewed.dry_run || reviewed.operations == 0 {
            return;
        }
        let injected = reviewed.decisions.iter().filter(|decision| decision.reason == Reason::Injected);
        for counter in injected.filter_map(|decision| self.injections.get(&*decision.definition)) {
            counter.inc();
        }
    }

    /// The place of the file that a name is served from.
    pub(crate) fn file_of(&self, name: &DefinitionName) -> Option<String> {
        self.files.get(name).map(ToString::to_string)
    }

    /// The names of the definitions, for a line of the log.
    pub(crate) fn names(&self) -> String {
        let names = self.engine.definitions();
        shorten(names.map(Cow::into_owned))
    }
}

impl State {
    fn take_in(&mut self, source: Source, parts: &[Part]) {
        let mut found: BTreeMap<DefinitionName, Vec<(&Part, &Document)>> = BTreeMap::new();
        let mut unreadable: HashSet<&str> = HashSet::new();
        self.nameless.retain(|(other, _, _)| *other != source);
        for part in parts {
            for document in part.documents.iter() {
                if let Some(name) = &document.name {
                    found.entry(name.clone()).or_default().push((part, document));
                } else {
                    self.nameless.push((source, part.origin.clone(), document.clone()));
                    unreadable.insert(&part.origin);
                }
            }
        }
        for (name, claims) in &mut self.claims {
            let mut new = found.remove(name).unwrap_or_default();
            // A definition that moved to another file and broke on the way is still the same definition.
            let mut homeless = None;
            claims.retain_mut(|claim| {
                if claim.source != source {
                    return true;
                }
                if let Some(at) = new.iter().position(|(part, _)| part.origin == claim.origin) {
                    let (_, document) = new.remove(at);
                    claim.read_again(document);
                    return true;
                }
                // It may be somewhere in what cannot be read.
                let stays = unreadable.contains(&*claim.origin);
                claim.is_out_of_sight = stays;
                if !stays {
                    homeless = homeless.take().or(claim.good.take());
                }
                stays
            });
            for (part, document) in new {
                let mut claim = Claim::new(source, part, document);
                claim.good = claim.good.or_else(|| homeless.take());
                claims.push(claim);
            }
        }
        for (name, new) in found {
            let claims = new.into_iter().map(|(part, document)| Claim::new(source, part, document));
            self.claims.insert(name, claims.collect());
        }
        self.claims.retain(|_, claims| !claims.is_empty());
        for claims in self.claims.values_mut() {
            // Who has never been good keeps nobody from serving, and does not displace who does.
            claims.sort_by_key(|claim| claim.good.is_none());
        }
    }

    fn serves(&self, name: &DefinitionName) -> Option<&Compiled> {
        self.claims.get(name).and_then(|claims| serving(claims)).map(Arc::as_ref)
    }

    fn serving(&self) -> Vec<(DefinitionName, Arc<Compiled>)> {
        let served = self.claims.iter();
        served.filter_map(|(name, claims)| Some((name.clone(), serving(claims)?.clone()))).collect()
    }

    fn served_from_files(&self) -> HashMap<DefinitionName, Arc<str>> {
        let served = self.claims.iter().filter_map(|(name, claims)| {
            let claim = claims.first().filter(|claim| claim.source == Source::Files)?;
            Some((name.clone(), claim.place.clone()))
        });
        served.collect()
    }

    fn states(&self) -> States {
        let invalid = self.nameless.iter().filter(|(_, _, document)| document.outcome.is_err()).count();
        let mut states = States { invalid, ..States::default() };
        for claims in self.claims.values() {
            let Some((first, others)) = claims.split_first() else { continue };
            states.conflicted += others.len();
            match (&first.good, &first.problems) {
                (None, _) => states.invalid += 1,
                (Some(_), None) if !first.is_out_of_sight => states.ready += 1,
                (Some(_), _) => states.kept += 1,
            }
        }
        states
    }

    fn complaints(&self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for (name, claims) in &self.claims {
            let complaint = |place: &Arc<str>, problems, keeps_good| Complaint {
                definition: name.shown(),
                place: place.clone(),
                problems,
                keeps_good,
            };
            for (at, claim) in claims.iter().enumerate() {
                if let Some(problems) = &claim.problems {
                    let keeps_good = at == 0 && claim.good.is_some();
                    complaints.push(complaint(&claim.place, lines(problems), keeps_good));
                }
            }
            if let Some((first, others)) = claims.split_first() {
                for other in others {
                    let taken = Problem::name_taken(name, &first.place);
                    complaints.push(complaint(&other.place, taken.to_string(), false));
                }
            }
        }
        complaints.extend(self.nameless.iter().filter_map(|(source, origin, document)| {
            let is_kept = |claim: &Claim| {
                claim.source == *source
                    && claim.origin == *origin
                    && claim.is_out_of_sight
                    && claim.good.is_some()
            };
            let keeps_good = self.claims.values().flatten().any(is_kept);
            let problems = lines(document.outcome.as_ref().err()?);
            let place = document.place.clone();
            Some(Complaint { definition: String::new(), place, problems, keeps_good })
        }));
        complaints
    }
}

/// What serves a name.
fn serving(claims: &[Claim]) -> Option<&Arc<Compiled>> {
    claims.first()?.good.as_ref()
}

impl Claim {
    fn new(source: Source, part: &Part, document: &Document) -> Self {
        let place = document.place.clone();
        let origin = part.origin.clone();
        let mut claim = Claim { source, origin, place, good: None, problems: None, is_out_of_sight: false };
        claim.read_again(document);
        claim
    }

    /// Another version of it has been read.
    fn read_again(&mut self, document: &Document) {
        self.place = document.place.clone();
        self.is_out_of_sight = false;
        match &document.outcome {
            Ok(good) => {
                self.good = Some(good.clone());
                self.problems = None;
            }
            Err(problems) => self.problems = Some(problems.clone()),
        }
    }
}

impl Difference {
    fn between(
        before: &[(DefinitionName, Arc<Compiled>)],
        after: &[(DefinitionName, Arc<Compiled>)],
    ) -> Self {
        let before: BTreeMap<_, _> = before.iter().map(|(name, definition)| (name, definition)).collect();
        let mut difference = Difference::default();
        for (name, definition) in after {
            match before.get(name) {
                None => difference.added.push(name.clone()),
                Some(old) if !Arc::ptr_eq(old, definition) => difference.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        let after: BTreeSet<_> = after.iter().map(|(name, _)| name).collect();
        difference.removed = before.into_keys().filter(|name| !after.contains(name)).cloned().collect();
        difference
    }

    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

fn engine(definitions: Vec<Arc<Compiled>>, settings: &Settings) -> Engine {
    let engine = Engine::new(definitions);
    match settings.excluded_namespaces.clone() {
        None => engine,
        Some(excluded) => engine.with_excluded_namespaces(excluded),
    }
}

fn injections(engine: &Engine, metrics: &Metrics) -> HashMap<String, Counter> {
    engine.definitions().map(|name| (name.to_string(), metrics.injections_of(&name))).collect()
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn names(keys: &[DefinitionName]) -> String {
    shorten(keys.iter().map(DefinitionName::shown))
}

fn shorten(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(NAMES);
    names.truncate(NAMES);
    let mut text = names.join(",");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}
