"""The checks that know nothing of annotation and training, in the order of their telling."""

from __future__ import annotations

from rlhf_platform.doctor.broker import check_broker
from rlhf_platform.doctor.database import (
    check_clock,
    check_database,
    check_database_settings,
    check_migrations,
)
from rlhf_platform.doctor.disk import check_disk
from rlhf_platform.doctor.findings import Check
from rlhf_platform.doctor.secrets import check_secrets

CHECKS = (
    Check("database", check_database),
    Check("database settings", check_database_settings, needs_database=True),
    Check("migrations", check_migrations, needs_database=True),
    Check("clock", check_clock, needs_database=True),
    Check("broker", check_broker),
    Check("disk", check_disk),
    Check("secrets", check_secrets),
)
