"""Why files of the collection give what they give, by name: what no program can tell."""

from __future__ import annotations

TWELVE_BIT = "JPEG Extended at 12 bit, which pylibjpeg does not decode; imagecodecs does."
CUT = "The file is cut. A cut file is refused whole, frames before the cut included."

#: Files with pixels that the manifest marks as failing.
FAILING = {
    "derived_no_preamble.dcm": (
        "Whole but for preamble and prefix: the data set shows its own encoding."
    ),
    "derived_huge_dims.dcm": "Rows and Columns say 60000 each: 3.6 billion samples a frame.",
    "derived_no_photometric.dcm": (
        "Photometric Interpretation (type 1, PS3.3 C.7.6.3) was removed: whether black is low or "
        "high is unknown, and an image shown inverted would find the wrong cases."
    ),
    "fo-dicom__GH1146.dcm": "The pixel data element is empty.",
    "pydicom__MR_truncated.dcm": f"{CUT} 62 of 8192 bytes are missing.",
    "pydicom__badVR.dcm": "Number of Frames is no number, so where frames begin is unknown.",
    "derived_trunc_jpeg.dcm": CUT,
    "derived_trunc_rle.dcm": CUT,
    "fo-dicom__genFile.dcm": (
        "Labelled JPEG Baseline, but the one fragment is 262144 zero bytes: no stream to decode."
    ),
    "fo-dicom__multiframe.dcm": (
        "Tiles of a larger picture: those at its edges are smaller than Rows x Columns and are "
        "refused; the others, the representative frame among them, decode."
    ),
    "pydicom__JPEG-lossy.dcm": TWELVE_BIT,
    "robyoung__MR1_JPLY.dcm": TWELVE_BIT,
    "robyoung__MR2_JPLY.dcm": TWELVE_BIT,
    "robyoung__MR4_JPLY.dcm": TWELVE_BIT,
    "robyoung__RG3_JPLY.dcm": TWELVE_BIT,
    "fo-dicom__GH1339.dcm": "pydicom ends before the data set; the bounded reader reads on.",
    "pydicomdata__emri_small_jpeg_2k_lossless_too_short.dcm": (
        "The delimiter behind the last fragment is cut off; all fragments are whole."
    ),
    "pydicomdata__liver_nonbyte_aligned_rle.dcm": (
        "RLE of single bits, eight to a byte, which pylibjpeg-rle does not decode."
    ),
    "pydicomdata__liver_deflate.dcm": (
        "Deflated Image Frame Compression is younger than pydicom's list of transfer syntaxes."
    ),
    "fo-dicom__GH177_D_CLUNIE_CT1_IVRLE_BigEndian_undefined_length.dcm": (
        "Inside a big-endian file a sequence of VR UN is implicit VR little endian (PS3.5 6.2.2), "
        "which pydicom does not expect."
    ),
    "fo-dicom__GH340.dcm": (
        "ACR-NEMA without Photometric Interpretation, and 12 bit packed: whether black is low or "
        "high is unknown."
    ),
    "fo-dicom__GH364.dcm": "An unknown VR ends pydicom's reading; the bounded reader steps over.",
    "pydicom__no_meta.dcm": (
        "A stray byte stands before the data set: no reader finds an element where one should be."
    ),
    "pydicomdata__OT-PAL-8-face.dcm": "A data set without preamble and File Meta Information.",
    "pylibjpegdata__A1.JPG": (
        "A bare JPEG of four components (CMYK): pictures for research are grey or RGB."
    ),
}

#: Files that the manifest marks as decodable and that are refused -> the policy.
REFUSED = dict.fromkeys(
    ("pydicomdata__JLSL_RGB_ILV0.dcm", "pydicomdata__JLSL_RGB_ILV2.dcm"),
    "SOP Instance UID is missing: a case is named by it, and would be found by nobody.",
)

WORDS = (
    "32-bit values in big endian: both programs swap 16-bit words (OW), the file 32-bit numbers. "
    "Swapped so it equals its little-endian twin `pydicom__rtdose_1frame.dcm`."
)
OVERSHOOT = (
    "A 12-bit stream of 10-bit values: eight pixels overshoot. DAFH takes them as they are, the "
    "others cut the upper bits off, which turns the highest values into the lowest."
)
FLOATS = "DCMTK does not show Float and Double Float Pixel Data."
MISLABELLED = "Labelled JPEG Baseline, the stream is JPEG-LS: no other program decodes it."
SIGNED_STREAM = (
    "The JPEG 2000 stream says that its values are signed, the data set that they are not: GDCM "
    "takes the data set's word, which turns all negative values white."
)
UNREADABLE = "No other program reads past its unknown VR."

#: What differs from a reference (see `compared`), or is not shown by it -> why.
DIFFERENT: dict[str, str] = {
    "pydicom__rtdose_expb_1frame.dcm": WORDS,
    "robyoung__RG3_JPLY.dcm": OVERSHOOT,
    "pydicomdata__parametric_map_double_float.dcm": FLOATS,
    "pydicomdata__parametric_map_float.dcm": FLOATS,
    "derived_wrong_tsuid.dcm": MISLABELLED,
    "fo-dicom__GH364.dcm": UNREADABLE,
    "pylibjpegdata__TOSHIBA_J2K_SIZ1_PixRep0.dcm": SIGNED_STREAM,
    "derived_bitflips_j2k.dcm": SIGNED_STREAM,
}
