// What gradio and custom_component.py define before a component's script runs, and the types that several scripts share.

/** The component's block on the page. */
declare const element: HTMLElement;

/** The component's value, and the keyword arguments that Python gave to `custom_component`. */
// biome-ignore lint/suspicious/noExplicitAny: the value differs by component; each script declares the type of its own
declare const props: { value: any; [name: string]: any };

/** Send an event to Python. Not a constant: coalesce_events.js wraps it. */
declare let trigger: (event: string, data?: Record<string, unknown>) => void;

/** Call a function after each change of a property by Python. */
declare function watch(name: string, callback: () => void): void;

/** By language, the texts of the script: English -> translation. */
declare const TRANSLATIONS: Record<string, Record<string, string>>;

/** Shares of the photo's sides: top, left, bottom, right. */
type Box = [number, number, number, number];

/** Values at the two ends of a colour map. */
type Limits = [number, number];

/** Row and column of a grid, from 0. */
type Cell = [number, number];

/** Maps as data_encoding.py encodes them: exact ("floats"), or in a byte each between the ends of each map. */
type PackedMaps = { shape: number[]; floats?: string; bytes?: string; ends?: string };

/** Unpacked maps; `at(i)` returns the values of the i-th map, row by row. */
type Maps = { rows: number; columns: number; shape: number[]; at: (index: number) => Float32Array };

/** A photo to draw on: a data URL and the size of the canvas. */
type Photo = { photo: string; width: number; height: number };

/** One map and how it is drawn; `threshold` hides smaller values (of signed maps: values nearer to 0). */
type DrawnMap = {
  values: ArrayLike<number>;
  rows: number;
  columns: number;
  limits: Limits;
  palette: string;
  box?: Box | null;
  signed?: boolean;
  smooth?: boolean;
  threshold?: number;
};
