//! When faults stop, everything gets written: a way from a state to the end.

use crate::alike::mark;
use crate::protocol::Protocol;
use crate::shard::Stage;
use crate::state::{State, Step};

impl Protocol {
    /// Whether, without another fault, everything gets written from here on. Statements without a connection never run
    /// again here, but for those that hold locks; that they run is another step from this state, and so checked too.
    pub(crate) fn recovers(&self, state: &State) -> bool {
        let mut way = Vec::new();
        let mut here = state.clone();
        while !self.is_done(&here) && !self.recovers.contains(mark(&here)) {
            way.push(mark(&here));
            if way.len() > FAULTLESS_STEPS {
                return false;
            }
            let mut steps = Vec::new();
            self.ordinary_steps(&here, &mut steps);
            steps.sort_by_key(|step| calm_order(step, &here));
            let next = steps
                .iter()
                .filter(|step| calm_order(step, &here) < NEVER)
                .find_map(|step| self.after(&here, step));
            match next {
                Some(next) => here = next,
                None => return false,
            }
        }
        self.recovers.extend(way);
        true
    }
}

/// Steps without a fault within which everything must be written; what it takes is about 40.
const FAULTLESS_STEPS: usize = 200;

const NEVER: u8 = u8::MAX;

/// In which order things happen when nothing is wrong: news of the group first, then what is under way, then new work.
fn calm_order(step: &Step, state: &State) -> u8 {
    match step {
        Step::Hear(..) => 0,
        Step::RunOrphan(at) => match state.orphans[*at].stage {
            Stage::Running(_) => 1,
            _ => NEVER,
        },
        Step::BuryLate(_) => 2,
        Step::Answer(_) => 3,
        Step::Run(_) => 4,
        Step::Bury(..) => 5,
        Step::Assign(..) => 6,
        Step::ClaimAgain(..) => 7,
        Step::Read(..) => 8,
        _ => NEVER,
    }
}
