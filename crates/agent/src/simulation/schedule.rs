//! What happens to one Pod, all of it known before it begins.

use super::faults::{Fault, Step};
use super::pods::Plan;
use super::random::Random;

/// A Pod and what is done to it.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub plan: Plan,
    pub steps: Vec<Step>,
    /// Whether the Pod is compared with one that nothing happens to, which is another life.
    pub compares: bool,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::random(&mut random);
        let number = 2 + random.below(10);
        let steps = (0..number).map(|_| Step::random(&mut random, plan.containers.len())).collect();
        Self { plan, steps, compares: random.one_in(4) }
    }

    /// The same with as few faults as still `fail`.
    pub fn shrunk(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut place = 0;
        while place < self.steps.len() {
            let mut shorter = self.clone();
            shorter.steps.remove(place);
            if fails(&shorter) {
                self = shorter;
                continue;
            }
            // The time before it may matter still.
            let mut milder = self.clone();
            milder.steps[place].fault = Fault::Nothing;
            if self.steps[place].fault != Fault::Nothing && fails(&milder) {
                self = milder;
            }
            place += 1;
        }
        self
    }
}
