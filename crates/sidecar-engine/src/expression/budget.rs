//! What an evaluation may cost. A definition is a stranger's program in the path of every pod: it must not take long.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::ExecutionError;
use cel::common::types::Type;
use cel::common::value::{StaticVal, Val};

/// Steps of all expressions of one definition, or of all definitions of a namespace, for one pod. A step is about what
/// one node of an expression, or 16 bytes of text, cost: some hundred nanoseconds, so that the worst definition takes
/// tens of milliseconds. Five hundred environment variables looked at with forty nodes each take 20,000.
const STEPS: u64 = 100_000;

/// Bytes of text that cost as much as a step.
const BYTES: usize = 16;

pub(super) const SPENT: &str = "costs too much: a definition has 100,000 steps for all that it does to a pod";

/// The steps that are left; a value, so that it can be handed to functions.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: AtomicU64::new(STEPS) }
    }
}

impl Budget {
    /// Pays for something else that grows with the pod; an error when there is not enough.
    pub(crate) fn pay(&self, steps: usize) -> Result<(), &'static str> {
        self.charge(steps).map_err(|_| SPENT)
    }

    /// Takes steps; an error when there are not enough, and from then on.
    pub(super) fn charge(&self, steps: usize) -> Result<(), ExecutionError> {
        let left = self.left.load(Ordering::Relaxed);
        let after = left.checked_sub(u64::try_from(steps).unwrap_or(u64::MAX)).filter(|_| left > 0);
        self.left.store(after.unwrap_or(0), Ordering::Relaxed);
        match after {
            Some(_) => Ok(()),
            None => Err(ExecutionError::function_error(super::functions::OURS, SPENT)),
        }
    }

    /// Takes what so many bytes of text cost.
    pub(super) fn charge_text(&self, bytes: usize) -> Result<(), ExecutionError> {
        self.charge(1 + bytes / BYTES)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

static TYPE: Type = Type::new_unspecified_type("budget");

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &TYPE
    }

    fn cel_type() -> &'static Type {
        &TYPE
    }

    /// Never asked for: an expression cannot name it.
    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Budget { left: AtomicU64::new(0) })
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}
