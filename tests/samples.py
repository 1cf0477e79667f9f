"""A little text in many scripts, and a small tokenizer trained on it, for tests that need no corpus."""

import functools

TEXTS = (
    "The quick brown fox jumps over the lazy dog while the old king watches from the tower.",
    "In 1889 the tower in Paris was finished, and two million people visited it that year.",
    "Who finished the tower? The engineer finished it with three hundred workers.",
    "Der schnelle braune Fuchs springt über den faulen Hund, während der König zuschaut.",
    "Ha nem érted a kérdést, kérdezd meg újra; a válasz egyszerű és rövid.",
    "Быстрая коричневая лиса прыгает через ленивую собаку, пока король смотрит с башни.",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول بينما ينظر الملك من البرج.",
    "השועל החום המהיר קופץ מעל הכלב העצלן.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है और राजा देखता है।",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ และพระราชาทรงมองดูจากหอคอย",
    "敏捷的棕色狐狸跳过了懒狗,国王从塔上看着。这座塔于1889年在巴黎完工。",
    "素早い茶色の狐がのろまな犬を飛び越える。王様は塔から見ている。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘고 왕은 탑에서 바라본다.",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười, nhà vua nhìn từ tòa tháp.",
    "Mbweha mwepesi wa kahawia anaruka juu ya mbwa mvivu, mfalme anatazama kutoka mnarani.",
    "Hızlı kahverengi tilki tembel köpeğin üzerinden atlar, kral kuleden bakar.",
    "Ọmọ náà ń ṣeré ní ọjà, bàbá rẹ̀ sì ń wò ó.",
)


@functools.cache
def small_tokenizer(model: str = "bpe", vocab_size: int = 600):
    from jxstilts.data import tokenizer

    return tokenizer.train(TEXTS, vocab_size, model=model, coverage=1.0)
