//! What a policy may say and this version does not do yet. Whoever says it is told, instead of finding out.

use crate::model::ServicePolicy;

use super::fields::Fields;

/// Notes each field that differs from its default and has no effect. What is the default promises nothing.
pub(super) fn note(policy: &ServicePolicy, fields: &Fields<'_>) {
    let default = ServicePolicy::default();
    let said = [("sticky", policy.sticky != default.sticky), ("zone_aware", policy.zone_aware != default.zone_aware)];
    for (key, _) in said.iter().filter(|(_, differs)| *differs) {
        fields.odd(key, MESSAGE);
    }
}

const MESSAGE: &str = "has no effect yet in this version";
