"""Worlds: simulated exposure logs whose true CTR and CVR are known on every exposure.

**Entities.** Users u and items v belong to latent groups g(u), h(v). Each carries unit-variance latents: U, V for the
CVR, U', V' for the CTR (a fifth of the variance between groups, the rest individual; U and U', V and V' independent),
and N_u, N_v for the CTR alone. How often each is exposed follows a Zipf-Mandelbrot law, so vocabularies have long
tails; their sizes grow with the log (25 exposures a user, 65 an item) unless a knob or ``full_vocabulary`` says
otherwise.

**The CVR's latent**, variance 1, of exposure i = (u, v, context)::

    l_i = sqrt(.45) U_u + sqrt(.45) V_v + sqrt(.06) cheapness_v + sqrt(.04) device_i
    c_i = sqrt(1 - k) l_i + sqrt(k) A[g(u), h(v)]

with k = `underspecification`: the share that is an interaction of groups nobody logs, out of reach of a model class
that is additive in the ids. A quarter of V_v belongs to the brand.

**Propensity and CVR**, with s = `selection`, r = `correlation`::

    m_i     = sqrt(.4) U'_u + sqrt(.4) V'_v + sqrt(.2) B[g(u), h(v)]
    n_i     = ctr_spread sqrt(.5) (N_u + N_v) + place_i
    ctr_i   = sigmoid( a + s [ r c_i + sqrt(1 - r^2) m_i ] + n_i + user_effect E_u )
    cvr_i   = sigmoid( b + cvr_spread c_i + user_effect F_u )
    click   ~ Bernoulli(ctr_i),  potential conversion R ~ Bernoulli(cvr_i),  conversion = click * R

place_i (position and hour) moves the CTR alone. a and b are solved for so that mean ctr = `ctr` and
sum(ctr cvr) / sum(ctr) = `cvr`. At s = 0 the propensity has nothing in common with the CVR: clicks are a fair sample of
the exposures (up to chance). At s > 0 clicks are drawn towards high CVR, so the CVR over exposures is lower than over
clicks.

**Everything that moves both is a function of logged columns** (the ids identify U, V and the groups), so there is no
hidden confounding: ``cvr_do`` = ``cvr_click``, and a rich enough model fitted on clicks alone is consistent. It goes
wrong for want of data and of model class, which is the case that entire-space and weighted estimators are for
(SYSTEMS, Decision 1).

**Faults that can be turned on.** ``unobserved_confounder`` moves both logits by a variable that nobody logs
(`postclick.simulation.confounding`: the two CVRs then differ), ``thin_overlap`` and ``support_violation`` take clicks
away where they are fewest, ``logged_propensity`` publishes P(click | x) as a column and
``propensity_misspecification`` makes it wrong (`postclick.simulation.overlap`). A CVR class that is too small for the
world is `underspecification` together with a system that is additive in the ids (``tower.hidden=[]``).

**In-shop actions** (`action_rate` > 0, as in the world `shop-path`) put a stage between click and conversion:
`postclick.simulation.actions` has its equations, `postclick.simulation.behaviour` its truth. cvr_i is then the mixture
of two paths with the same mean; users, items, exposures and clicks stay those of the world without actions.

**Communities** (`structure`, `contradiction` > 0): what many ids have in common and only their clicks and conversions
tell, and items whose clicks contradict their purchases (`postclick.simulation.communities`).

**Delayed conversions** (`delay` > 0, as in the world `delayed`): conversions come after the click, and the log is read
before all have come (`postclick.simulation.delay`). The truth is that of the world without delays.

**Reward models.** The world ``reward`` is another one: a vector a row, annotated or not
(`postclick.simulation.reward`).

The default r is .7. At r = .5 clicks alone still over-predict, but an entire-space model learns too little about the
CVR from the clicks to rank better: the two tied in our sketches.
"""

from postclick.simulation.behaviour import Behaviour, PscGap, psc_gap
from postclick.simulation.presets import PRESETS, Knobs
from postclick.simulation.reward import RewardKnobs
from postclick.simulation.simulate import simulate
from postclick.simulation.world import Layout, World

__all__ = ["PRESETS", "Behaviour", "Knobs", "Layout", "PscGap", "RewardKnobs", "World", "psc_gap", "simulate"]
