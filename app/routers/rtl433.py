"""Topics of the radio receiver rtl_433."""

from __future__ import annotations

from app.controllers.rtl433_controller import Rtl433Controller
from core.router import Router

router = Router()
router.on("rtl_433/<model>/<device_id>", Rtl433Controller.handle_reading, qos=1)
