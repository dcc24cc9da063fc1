// What every page does by itself: themes, keys, the palette, actions, and staying true while it is open.
import { startActions } from "./action.js";
import { startKeys } from "./keys.js";
import { startPalette } from "./palette.js";
import { startRows } from "./rows.js";
import { startTheme } from "./theme.js";
import { startFresh } from "./fresh.js";

startTheme();
startActions();
startKeys();
startPalette();
startRows();
startFresh();
