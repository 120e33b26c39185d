"""The debug page: what it hides."""

from types import FrameType
from typing import Any

from django.http import HttpRequest
from django.views.debug import SafeExceptionReporterFilter

from poolhouse.tracing.masks import without_passwords


class PasswordFilter(SafeExceptionReporterFilter):
    """Django's filter, which hides values by their names; this one also hides passwords inside values such as URLs."""

    def cleanse_setting(self, key: Any, value: Any) -> Any:
        """Return the value without passwords."""
        cleansed = super().cleanse_setting(key, value)
        return without_passwords(cleansed) if isinstance(cleansed, str) else cleansed

    def get_traceback_frame_variables(self, request: HttpRequest | None, tb_frame: FrameType) -> Any:
        """Return a frame's variables, filtered as settings are."""
        variables = super().get_traceback_frame_variables(request, tb_frame)
        return [(name, self.cleanse_setting(name, value)) for name, value in variables]
